"""Abdominal organs of the phantom, with their neighbours, contents and lesions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fseft.builtin.phantom.shapes import KEEP, Shape, ellipsoid, point, tube

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fseft.builtin.phantom.anatomy import Scene
    from fseft.builtin.phantom.shapes import Float, Grid


def paint_bowel(rng: np.random.Generator, scene: Scene) -> None:
    """Small bowel as a tangle of loops, and the colon as a frame around it."""
    grid = scene.grid
    wave = rng.uniform(
        24, 36
    )  # where two random fields vanish together, a curve winds: the bowel follows it
    coil = np.hypot(*(grid.noise(rng, wave) for _ in range(2)))
    room = np.minimum.reduce(
        [scene.cage - 14.0, -52.0 - grid.z, grid.y + 28.0, 96.0 - np.abs(grid.x)]
    )
    loops = np.minimum((rng.uniform(0.8, 1.4) - coil) * 0.45 * wave, room).astype(np.float32)
    scene.paint("bowel_wall", grid.whole(loops))
    scene.paint("bowel_fluid", grid.whole(loops - 3.0))
    scene.paint(
        "air",
        grid.whole(np.minimum(loops - 4.0, (grid.y - rng.uniform(35, 90)).astype(np.float32))),
    )
    points = np.array(
        [(92, 18, -172), (100, -2, -135), (102, -12, -95), (86, 12, -72), (45, 62, -92), (-5, 70, -100),
         (-55, 58, -70), (-96, 2, -25), (-106, -32, -60), (-108, -32, -120), (-92, -8, -165), (-45, 5, -190),
         (-10, -15, -205), (0, -40, -230)]
    ) + rng.normal(0, 5, (14, 3))  # fmt: skip
    points[4:7, 2] += rng.normal(-5, 14)  # the transverse colon hangs as it likes
    radii = rng.normal(1.0, 0.12) * np.array(
        [26, 24, 22, 21, 20, 19, 18, 18, 16, 15, 14, 15, 16, 18]
    )
    haustra = grid.noise(rng, 22.0) * np.float32(2.0)
    colon = tube(grid, points, radii)
    colon = scene.abdominal(Shape(colon.box, colon.distance + haustra[colon.box]))
    scene.paint("bowel_wall", colon, "colon", gap_mm=scene.habitus.gap_mm)
    scene.paint("stool", colon.grown(-2.5), KEEP)
    gas = 15.0 * (grid.noise(rng, 45.0) + grid.y / 60.0 - rng.uniform(-0.6, 1.2))
    scene.paint("air", colon.grown(-3.0).within(gas.astype(np.float32)), KEEP)


def paint_stomach(rng: np.random.Generator, scene: Scene) -> None:
    """The stomach: a J with wall, fluid or food, and air in front (the patient lies on the back)."""
    grid, down = scene.grid, 0.8 * scene.habitus.breath_mm
    fill = rng.uniform(0.72, 1.15)
    points = np.array(
        [(-58, -22, 40), (-66, 2, 22), (-66, 34, -8), (-44, 54, -40), (-8, 52, -52), (22, 38, -44),
         (36, 24, -48)]
    ) + rng.normal(0, 4, (7, 3))  # fmt: skip
    points[:, 2] += down
    points[3:5, 2] -= 18.0 * rng.uniform(0, 1)
    radii = np.array([30, 34 * fill, 31 * fill, 26 * fill, 19 * fill, 13, 11])
    stomach = scene.abdominal(tube(grid, points, radii))
    scene.paint("bowel_wall", stomach, "stomach", gap_mm=scene.habitus.gap_mm)
    lumen = stomach.grown(-rng.uniform(4, 6))
    scene.paint("stomach_fluid", lumen, KEEP)
    level = (grid.y - np.float32(rng.uniform(0, 75))).astype(np.float32)
    scene.paint("air", lumen.within(level), KEEP)


def paint_pancreas(rng: np.random.Generator, scene: Scene) -> None:
    """The pancreas from the duodenum to the splenic hilum, with duodenum and splenic vein."""
    grid, down = scene.grid, 0.5 * scene.habitus.breath_mm
    swing = rng.normal(0, 4, (6, 3))
    points = np.array(
        [(32, 0, -68), (30, 6, -48), (12, 14, -36), (-18, 14, -28), (-48, -4, -18), (-80, -26, -6)]
    ) + swing + point(0, 0, down)  # fmt: skip
    size = rng.normal(1.0, 0.08)
    course = np.array([(38, 26, -46), (54, 6, -52), (54, -4, -80), (30, -14, -94), (-8, -14, -88)])
    duodenum = tube(grid, course + point(0, 0, down), 13.0)
    scene.paint("bowel_wall", duodenum, gap_mm=1.5)
    scene.paint("bowel_fluid", duodenum.grown(-5.0))
    vein = points[2:] + point(0, -13, 4)
    scene.paint("portal", tube(grid, vein, 4.5))
    lobules = grid.noise(rng, 11.0)
    pancreas = tube(grid, points, size * np.array([15.5, 16.5, 11.5, 12.5, 12.5, 10.5]))
    pancreas = scene.abdominal(Shape(pancreas.box, pancreas.distance + lobules[pancreas.box]))
    scene.paint("pancreas", pancreas, "pancreas", gap_mm=1.0 + 0.6 * scene.habitus.gap_mm)


def paint_liver(rng: np.random.Generator, scene: Scene) -> None:
    """The liver under the right dome, its vessels and lesions, and the gallbladder below it."""
    shift = rng.normal(0, 3, 3) + point(0, 0, 0.8 * scene.habitus.breath_mm)
    liver = scene.abdominal(scene.grid.whole(_liver(rng, scene.grid, shift)))
    scene.paint("liver", liver, "liver", gap_mm=0.6 * scene.habitus.gap_mm)
    _paint_liver_vessels(scene, liver, shift)
    _paint_lesions(rng, scene, liver, (0, 0, 0, 1, 2, 5))
    if rng.uniform() < 0.9:  # some have lost their gallbladder
        radii = rng.uniform(0.78, 1.2) * np.array([32.0, 15.5, 15.5])
        bag = ellipsoid(
            scene.grid, shift + point(48, 44, -42) + rng.normal(0, 4, 3), radii, (0.15, 0.5, -0.8)
        )
        bag = scene.abdominal(bag)
        scene.paint("bowel_wall", bag, "gallbladder", gap_mm=0.5)
        scene.paint("bile", bag.grown(-2.0), KEEP)


def paint_spleen(rng: np.random.Generator, scene: Scene) -> None:
    """The spleen: a shell between the left ribs and the stomach."""
    grid, down = scene.grid, 0.8 * scene.habitus.breath_mm
    centre = np.array([-98, -40, 8.0 + down]) + rng.normal(0, 4, 3)
    radii = rng.normal(1.0, 0.09) * np.array([62.0, 50, 33])
    spleen = scene.abdominal(ellipsoid(grid, centre, radii, (-0.25, 0.35, -0.9)))
    hilum = ellipsoid(grid, centre + point(38, 24, -2), (40, 28, 30))
    spleen = spleen.within(-grid.spread(hilum))
    scene.paint("spleen", spleen, "spleen", gap_mm=0.8 * scene.habitus.gap_mm)
    _paint_lesions(rng, scene, spleen, (0, 0, 0, 0, 1))


def paint_kidneys(rng: np.random.Generator, scene: Scene) -> None:
    """Kidneys in their fat: cortex, medulla, sinus, cysts; now and then one hangs low."""
    grid, habitus = scene.grid, scene.habitus
    for name, side, height in (("kidney_right", 1.0, -52.0), ("kidney_left", -1.0, -38.0)):
        low = rng.uniform(20, 55) if rng.uniform() < 0.08 else 0.0
        height += 0.5 * habitus.breath_mm - low
        centre = np.array([side * (62 + habitus.gap_mm), -54.0, height]) + rng.normal(0, 4, 3)
        axis = (side * -0.28, -0.15, 1.0)
        radii = rng.normal(1.0, 0.06) * np.array([56.0, 29, 27])
        kidney = ellipsoid(grid, centre, radii, axis).within(scene.cage - 10.0)
        sinus = ellipsoid(grid, centre + point(side * -22, 10, 0), (24, 13, 13), axis)
        scene.paint("kidney_cortex", kidney, name, gap_mm=3.0 + 1.5 * habitus.gap_mm)
        scene.paint("kidney_medulla", kidney.grown(-8.0), KEEP)
        _paint_lesions(rng, scene, kidney, (0, 0, 1, 3))
        scene.paint("fat", sinus)
        scene.paint("urine", ellipsoid(grid, centre + point(side * -20, 8, 0), (12, 6, 6), axis))


def _liver(rng: np.random.Generator, grid: Grid, shift: NDArray[np.float64]) -> Float:
    """A large right lobe with a tail, a left lobe across the midline, and a slanting under-surface."""
    size, reach = rng.normal(1.0, 0.05), rng.uniform(0.75, 1.2)  # reach: how far the left lobe goes
    right = ellipsoid(
        grid, shift + point(70, -4, 0), size * np.array([74, 86, 84]), (1.0, 0.0, 0.15)
    )
    left = ellipsoid(
        grid, shift + point(4, 48, 20), size * np.array([78 * reach, 42, 34]), (1.0, -0.15, -0.25)
    )
    tail = ellipsoid(
        grid, shift + point(96, 0, -50), np.array([30, 48, 36 * rng.uniform(0.6, 1.7)])
    )
    under = (
        grid.z - shift[2] + 58.0 - rng.normal(0.42, 0.08) * (88.0 - grid.x) - 0.18 * (grid.y + 40.0)
    )
    under += 5.0 * grid.noise(rng, 45.0)
    spine = 30.0 + 0.9 * (grid.y + 78.0) + 0.6 * (grid.x - 20.0).clip(0)
    lobe = np.minimum(np.maximum(grid.spread(right), grid.spread(tail)), 0.9 * under)
    return np.asarray(np.minimum(_blend(lobe, grid.spread(left), 10.0), spine), np.float32)


def _paint_liver_vessels(scene: Scene, liver: Shape, shift: NDArray[np.float64]) -> None:
    grid, gate = scene.grid, shift + point(24, 8, -22)
    trunk = [point(6, 2, -45), gate, shift + point(50, 2, 0), shift + point(92, -14, 8)]
    scene.paint("portal", tube(grid, trunk, [6.5, 7, 6, 4]), KEEP)
    inside = grid.spread(liver) - np.float32(5.0)
    for end in (point(105, 5, 10), point(60, 50, 10), point(-20, 45, 28)):
        course = np.stack([point(24, -8, 52), point(12, -4, 35) + end / 2, end]) + shift
        scene.paint("portal", tube(grid, course, [5, 4.5, 2.5]).within(inside), KEEP)


def _paint_lesions(
    rng: np.random.Generator, scene: Scene, organ: Shape, counts: tuple[int, ...]
) -> None:
    """Cysts and tumours: they stay part of the organ's label."""
    bound = scene.grid.spread(organ)
    depth = np.argwhere(organ.distance > 4.0) + [s.start for s in organ.box]
    for _ in range(int(rng.choice(counts)) if len(depth) else 0):
        i, j, k = depth[rng.integers(len(depth))]
        centre = [float(a[i, j, k]) for a in (scene.grid.x, scene.grid.y, scene.grid.z)]
        lesion = ellipsoid(scene.grid, centre, rng.uniform(4, 16) * rng.uniform(0.8, 1.2, 3))
        scene.paint(str(rng.choice(["cyst", "tumour"])), lesion.within(bound), KEEP)


def _blend(a: Float, b: Float, radius: float) -> Float:
    # polynomial smooth union of two solids
    mix = np.clip(0.5 + 0.5 * (a - b) / radius, 0, 1)
    return np.asarray(b + (a - b) * mix + radius * mix * (1 - mix), np.float32)
