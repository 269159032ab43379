"""Abdominal organs of the phantom, with their neighbours, contents and lesions.

Each function paints into a `Scene`, in place; the generator decides position, size and content.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fseft.builtin.phantom.shapes import KEEP, Shape, ellipsoid, point, tube

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fseft.builtin.phantom.anatomy import Habitus, Scene
    from fseft.builtin.phantom.shapes import Float, Grid

# Points of curves (x, y, z) and radii, in mm of the reference body.
_COLON = (
    (92, 18, -172), (100, -2, -135), (102, -12, -95), (86, 12, -72), (45, 62, -92), (-5, 70, -100),
    (-55, 58, -70), (-96, 2, -25), (-106, -32, -60), (-108, -32, -120), (-92, -8, -165),
    (-45, 5, -190), (-10, -15, -205), (0, -40, -230),
)  # fmt: skip
_COLON_RADII = (26, 24, 22, 21, 20, 19, 18, 18, 16, 15, 14, 15, 16, 18)
_STOMACH = (
    (-58, -22, 40), (-66, 2, 22), (-66, 34, -8), (-44, 54, -40), (-8, 52, -52), (22, 38, -44),
    (36, 24, -48),
)  # fmt: skip
_PANCREAS = (
    (32, 0, -68), (30, 6, -48), (12, 14, -36), (-18, 14, -28), (-48, -4, -18), (-80, -26, -6),
)  # fmt: skip
_PANCREAS_RADII = (15.5, 16.5, 11.5, 12.5, 12.5, 10.5)
_DUODENUM = ((38, 26, -46), (54, 6, -52), (54, -4, -80), (30, -14, -94), (-8, -14, -88))
_KIDNEYS = (("kidney_right", 1.0, -52.0), ("kidney_left", -1.0, -38.0))  # name, side, height
_HEPATIC_VEINS = ((105, 5, 10), (60, 50, 10), (-20, 45, 28))  # their ends


def paint_bowel(rng: np.random.Generator, scene: Scene) -> None:
    """Paints the small bowel as a tangle of loops, and the colon as a frame around it."""
    grid = scene.grid
    # Two random fields vanish together on winding curves, which the bowel follows.
    wave = rng.uniform(24, 36)
    coil = np.hypot(*(grid.noise(rng, wave) for _ in range(2)))
    bounds = [
        scene.cage - 14.0,
        -52.0 - grid.z,
        grid.y + 28.0,
        96.0 - np.abs(grid.x),
    ]
    room = np.minimum.reduce(bounds)
    winding = (rng.uniform(0.8, 1.4) - coil) * 0.45 * wave
    loops = np.minimum(winding, room).astype(np.float32)
    scene.paint("bowel_wall", grid.whole(loops))
    scene.paint("bowel_fluid", grid.whole(loops - 3.0))
    gas = (grid.y - rng.uniform(35, 90)).astype(np.float32)
    scene.paint("air", grid.whole(np.minimum(loops - 4.0, gas)))
    _paint_colon(rng, scene)


def _paint_colon(rng: np.random.Generator, scene: Scene) -> None:
    grid = scene.grid
    points = np.array(_COLON) + rng.normal(0, 5, (14, 3))
    # The position of the transverse colon varies.
    points[4:7, 2] += rng.normal(-5, 14)
    size = rng.normal(1.0, 0.12)
    radii = size * np.array(_COLON_RADII)
    haustra = grid.noise(rng, 22.0) * np.float32(2.0)
    colon = tube(grid, points, radii)
    colon = scene.abdominal(Shape(colon.box, colon.distance + haustra[colon.box]))
    scene.paint("bowel_wall", colon, "colon", gap_mm=scene.habitus.gap_mm)
    scene.paint("stool", colon.grown(-2.5), KEEP)
    bubbles = grid.noise(rng, 45.0) + grid.y / 60.0
    gas = 15.0 * (bubbles - rng.uniform(-0.6, 1.2))
    lumen = colon.grown(-3.0)
    scene.paint("air", lumen.within(gas.astype(np.float32)), KEEP)


def paint_stomach(rng: np.random.Generator, scene: Scene) -> None:
    """Paints the stomach with wall, fluid or food, and air in front, as the patient is supine."""
    grid = scene.grid
    fill = rng.uniform(0.72, 1.15)
    points = np.array(_STOMACH) + rng.normal(0, 4, (7, 3))
    points[:, 2] += 0.8 * scene.habitus.breath_mm
    points[3:5, 2] -= 18.0 * rng.uniform(0, 1)
    radii = np.array([30, 34 * fill, 31 * fill, 26 * fill, 19 * fill, 13, 11])
    stomach = scene.abdominal(tube(grid, points, radii))
    scene.paint("bowel_wall", stomach, "stomach", gap_mm=scene.habitus.gap_mm)
    lumen = stomach.grown(-rng.uniform(4, 6))
    scene.paint("stomach_fluid", lumen, KEEP)
    level = np.float32(rng.uniform(0, 75))
    air = (grid.y - level).astype(np.float32)
    scene.paint("air", lumen.within(air), KEEP)


def paint_pancreas(rng: np.random.Generator, scene: Scene) -> None:
    """Paints the pancreas from the duodenum to the splenic hilum, and the splenic vein."""
    grid = scene.grid
    down = point(0, 0, 0.5 * scene.habitus.breath_mm)
    points = np.array(_PANCREAS) + rng.normal(0, 4, (6, 3)) + down
    size = rng.normal(1.0, 0.08)
    duodenum = tube(grid, np.array(_DUODENUM) + down, 13.0)
    scene.paint("bowel_wall", duodenum, gap_mm=1.5)
    scene.paint("bowel_fluid", duodenum.grown(-5.0))
    vein = points[2:] + point(0, -13, 4)
    scene.paint("portal", tube(grid, vein, 4.5))
    lobules = grid.noise(rng, 11.0)
    pancreas = tube(grid, points, size * np.array(_PANCREAS_RADII))
    pancreas = scene.abdominal(Shape(pancreas.box, pancreas.distance + lobules[pancreas.box]))
    gap_mm = 1.0 + 0.6 * scene.habitus.gap_mm
    scene.paint("pancreas", pancreas, "pancreas", gap_mm=gap_mm)


def paint_liver(rng: np.random.Generator, scene: Scene) -> None:
    """Paints the liver under the right dome, its vessels and lesions, and the gallbladder."""
    shift = rng.normal(0, 3, 3) + point(0, 0, 0.8 * scene.habitus.breath_mm)
    liver = scene.abdominal(scene.grid.whole(_liver(rng, scene.grid, shift)))
    scene.paint("liver", liver, "liver", gap_mm=0.6 * scene.habitus.gap_mm)
    _paint_liver_vessels(scene, liver, shift)
    _paint_lesions(rng, scene, liver, (0, 0, 0, 1, 2, 5))
    if rng.uniform() < 0.9:  # others had a cholecystectomy
        _paint_gallbladder(rng, scene, shift)


def _paint_gallbladder(rng: np.random.Generator, scene: Scene, shift: NDArray[np.float64]) -> None:
    """Paints the gallbladder below the liver, which is displaced by `shift`."""
    size = rng.uniform(0.78, 1.2)
    radii = size * np.array([32.0, 15.5, 15.5])
    displacement = rng.normal(0, 4, 3)
    centre = shift + point(48, 44, -42) + displacement
    gallbladder = ellipsoid(scene.grid, centre, radii, (0.15, 0.5, -0.8))
    gallbladder = scene.abdominal(gallbladder)
    scene.paint("bowel_wall", gallbladder, "gallbladder", gap_mm=0.5)
    scene.paint("bile", gallbladder.grown(-2.0), KEEP)


def paint_spleen(rng: np.random.Generator, scene: Scene) -> None:
    """Paints the spleen, a shell between the left ribs and the stomach."""
    grid = scene.grid
    height = 8.0 + 0.8 * scene.habitus.breath_mm
    centre = np.array([-98, -40, height]) + rng.normal(0, 4, 3)
    radii = rng.normal(1.0, 0.09) * np.array([62.0, 50, 33])
    spleen = ellipsoid(grid, centre, radii, (-0.25, 0.35, -0.9))
    spleen = scene.abdominal(spleen)
    hilum = ellipsoid(grid, centre + point(38, 24, -2), (40, 28, 30))
    spleen = spleen.within(-grid.spread(hilum))
    gap_mm = 0.8 * scene.habitus.gap_mm
    scene.paint("spleen", spleen, "spleen", gap_mm=gap_mm)
    _paint_lesions(rng, scene, spleen, (0, 0, 0, 0, 1))


def paint_kidneys(rng: np.random.Generator, scene: Scene) -> None:
    """Paints kidneys in their fat, with cortex, medulla, sinus and cysts."""
    for name, side, height in _KIDNEYS:
        _paint_kidney(rng, scene, name, side, height)


def _paint_kidney(
    rng: np.random.Generator, scene: Scene, name: str, side: float, height: float
) -> None:
    grid = scene.grid
    centre = _kidney_centre(rng, scene.habitus, side, height)
    size = rng.normal(1.0, 0.06)
    radii = size * np.array([56.0, 29, 27])
    axis = (side * -0.28, -0.15, 1.0)
    kidney = ellipsoid(grid, centre, radii, axis)
    kidney = kidney.within(scene.cage - 10.0)
    gap_mm = 3.0 + 1.5 * scene.habitus.gap_mm
    scene.paint("kidney_cortex", kidney, name, gap_mm=gap_mm)
    scene.paint("kidney_medulla", kidney.grown(-8.0), KEEP)
    _paint_lesions(rng, scene, kidney, (0, 0, 1, 3))
    sinus_centre = centre + point(side * -22, 10, 0)
    scene.paint("fat", ellipsoid(grid, sinus_centre, (24, 13, 13), axis))
    pelvis_centre = centre + point(side * -20, 8, 0)
    scene.paint("urine", ellipsoid(grid, pelvis_centre, (12, 6, 6), axis))


def _kidney_centre(
    rng: np.random.Generator, habitus: Habitus, side: float, height: float
) -> NDArray[np.float64]:
    """Returns the centre of a kidney in mm; a few kidneys are ptotic."""
    is_ptotic = rng.uniform() < 0.08
    drop = rng.uniform(20, 55) if is_ptotic else 0.0
    lateral = side * (62 + habitus.gap_mm)
    height += 0.5 * habitus.breath_mm - drop
    return point(lateral, -54.0, height) + rng.normal(0, 4, 3)


def _liver(rng: np.random.Generator, grid: Grid, shift: NDArray[np.float64]) -> Float:
    """Returns the distance to a liver of right lobe with tail, left lobe and slanting underside."""
    size = rng.normal(1.0, 0.05)
    reach = rng.uniform(0.75, 1.2)
    right_centre = shift + point(70, -4, 0)
    right_radii = size * np.array([74, 86, 84])
    right_lobe = ellipsoid(grid, right_centre, right_radii, (1.0, 0.0, 0.15))
    left_centre = shift + point(4, 48, 20)
    left_radii = size * np.array([78 * reach, 42, 34])
    left_lobe = ellipsoid(grid, left_centre, left_radii, (1.0, -0.15, -0.25))
    tail = _liver_tail(rng, grid, shift)
    underside = _underside(rng, grid, shift)
    lobe = np.maximum(grid.spread(right_lobe), grid.spread(tail))
    lobe = np.minimum(lobe, 0.9 * underside)
    liver = _smooth_union(lobe, grid.spread(left_lobe), 10.0)
    liver = np.minimum(liver, _in_front_of_spine(grid))
    return np.asarray(liver, np.float32)


def _liver_tail(rng: np.random.Generator, grid: Grid, shift: NDArray[np.float64]) -> Shape:
    """Returns the tail of the right lobe, whose length varies most."""
    centre = shift + point(96, 0, -50)
    height = 36 * rng.uniform(0.6, 1.7)
    return ellipsoid(grid, centre, (30, 48, height))


def _underside(rng: np.random.Generator, grid: Grid, shift: NDArray[np.float64]) -> Float:
    """Returns the height in mm above the slanting underside of the liver."""
    slope = rng.normal(0.42, 0.08)
    height = grid.z - shift[2] + 58.0
    height = height - slope * (88.0 - grid.x)
    height = height - 0.18 * (grid.y + 40.0)
    height += 5.0 * grid.noise(rng, 45.0)
    return np.asarray(height)


def _in_front_of_spine(grid: Grid) -> Float:
    """Returns the distance to a surface in front and to the right of the spine."""
    anterior = grid.y + 78.0
    right = (grid.x - 20.0).clip(0)
    distance = 30.0 + 0.9 * anterior + 0.6 * right
    return np.asarray(distance)


def _paint_liver_vessels(scene: Scene, liver: Shape, shift: NDArray[np.float64]) -> None:
    grid = scene.grid
    hilum = shift + point(24, 8, -22)
    trunk = [
        point(6, 2, -45),
        hilum,
        shift + point(50, 2, 0),
        shift + point(92, -14, 8),
    ]
    scene.paint("portal", tube(grid, trunk, [6.5, 7, 6, 4]), KEEP)
    inside = grid.spread(liver) - np.float32(5.0)
    for position in _HEPATIC_VEINS:
        end = point(*position)
        middle = point(12, -4, 35) + end / 2
        course = np.stack([point(24, -8, 52), middle, end]) + shift
        vein = tube(grid, course, [5, 4.5, 2.5])
        scene.paint("portal", vein.within(inside), KEEP)


def _paint_lesions(
    rng: np.random.Generator, scene: Scene, organ: Shape, counts: tuple[int, ...]
) -> None:
    """Paints cysts and tumours, which keep the label of the organ; `counts` are equally likely."""
    grid = scene.grid
    bound = grid.spread(organ)
    corner = [side.start for side in organ.box]
    deep = np.argwhere(organ.distance > 4.0) + corner
    count = int(rng.choice(counts)) if len(deep) else 0
    for _ in range(count):
        i, j, k = deep[rng.integers(len(deep))]
        centre = [float(axis[i, j, k]) for axis in (grid.x, grid.y, grid.z)]
        radii = rng.uniform(4, 16) * rng.uniform(0.8, 1.2, 3)
        lesion = ellipsoid(grid, centre, radii)
        tissue = str(rng.choice(["cyst", "tumour"]))
        scene.paint(tissue, lesion.within(bound), KEEP)


def _smooth_union(a: Float, b: Float, radius: float) -> Float:
    """Returns the polynomial smooth union of two solids."""
    difference = a - b
    position = 0.5 + 0.5 * difference / radius
    mix = np.clip(position, 0, 1)
    bulge = radius * mix * (1 - mix)
    union = b + difference * mix + bulge
    return np.asarray(union, np.float32)
