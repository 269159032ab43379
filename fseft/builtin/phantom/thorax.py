"""Body wall, bones, lungs, heart and great vessels of the phantom."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fseft.builtin.phantom.shapes import KEEP, Grid, Shape, ellipsoid, point, tube

if TYPE_CHECKING:
    from fseft.builtin.phantom.anatomy import Habitus, Scene
    from fseft.builtin.phantom.shapes import Float

# half-width and half-depth of the rib cage and abdominal wall by height, and of the shoulders around them
HEIGHT = np.array([-260.0, -150, -60, 0, 60, 120, 170, 205, 230, 245, 260])
WIDTH = np.array([134.0, 127, 130, 135, 137, 130, 112, 90, 64, 40, 30])
DEPTH = np.array([88.0, 88, 92, 97, 99, 93, 80, 66, 50, 36, 30])
SHOULDER = np.array([0.0, 0, 0, 0, 2, 14, 45, 72, 80, 78, 60])
RIB_PITCH, LOWEST_RIB = 22.5, -12.0


def cage(grid: Grid, habitus: Habitus) -> Float:
    """Distance in mm to the surface in which the ribs lie, positive inside."""
    belly = np.clip((20.0 - grid.z) / 80.0, 0, 1) * np.float32(habitus.belly_mm / 2)
    width = np.interp(grid.z, HEIGHT, WIDTH).astype(np.float32)
    depth = np.interp(grid.z, HEIGHT, DEPTH).astype(np.float32) + belly
    return _oval(grid.x, grid.y - belly, width + belly * np.float32(0.4), depth)


def diaphragm(rng: np.random.Generator, grid: Grid, habitus: Habitus) -> Float:
    """Height in mm above the diaphragm: two domes and the floor of the heart between them."""
    right = 72.0 + habitus.breath_mm + rng.normal(0, 3)
    left = right - rng.uniform(4, 20)
    domes = [
        (right, 70.0, 5.0, 80.0),
        (left, -70.0, 5.0, 80.0),
        (left - 10, -8.0, 25.0, 70.0),
    ]
    surface = [
        top - 42.0 * (((grid.x - x) / 60.0) ** 2 + ((grid.y - y) / ry) ** 2)
        for top, x, y, ry in domes
    ]
    return np.asarray(grid.z - np.maximum.reduce(surface), np.float32)


def flesh(rng: np.random.Generator, grid: Grid, cage: Float) -> Float:
    """Distance in mm to the outside of the muscles: around the cage, the shoulders and the back."""
    shoulder = np.interp(grid.z, HEIGHT, SHOULDER).astype(np.float32)
    wall = cage + np.float32(rng.uniform(5, 11)) + shoulder * np.clip(np.abs(grid.x) / 100.0, 0, 1)
    back = _oval(grid.x, grid.y + 78.0, 72.0, 40.0)
    return np.asarray(np.maximum(wall, back), np.float32)


def paint_wall(rng: np.random.Generator, scene: Scene) -> None:
    """Skin, subcutaneous fat, muscles, and the fat that fills the cavity."""
    grid, habitus = scene.grid, scene.habitus
    fat: Float = scene.flesh + np.float32(habitus.fat_mm) * (
        np.float32(1.0) + np.float32(0.25) * grid.noise(rng, 90.0)
    )
    scene.paint("skin", grid.whole(fat + np.float32(2.5)))
    scene.paint("fat", grid.whole(fat))
    scene.paint("muscle", grid.whole(scene.flesh))
    scene.paint("fat", grid.whole(scene.cage - 4.0))
    scene.paint("muscle", grid.whole(np.minimum(2.5 - np.abs(scene.diaphragm), scene.cage)))
    bulk = rng.uniform(0.85, 1.2)
    for side in (-1.0, 1.0):
        top, bottom = (side * 28.0, -100.0, 240.0), (side * 34.0, -96.0, -260.0)
        scene.paint(
            "muscle",
            tube(grid, [top, (side * 30, -98, 0), bottom], bulk * np.array([20, 24, 27])).within(
                scene.flesh
            ),
        )
        psoas = [
            (side * 26, -62, -20),
            (side * 38, -58, -80),
            (side * 50, -48, -140),
            (side * 62, -30, -250),
        ]
        scene.paint("muscle", tube(grid, psoas, bulk * np.array([7.0, 15, 21, 24])))


def paint_lungs(rng: np.random.Generator, scene: Scene) -> None:
    """Both lungs: the cage above the diaphragm, beside the mediastinum."""
    grid = scene.grid
    hilum = np.exp(-(((grid.z - 125.0) / 45.0) ** 2))
    middle = 9.0 + (16.0 + 12.0 * hilum) * np.exp(-(((grid.y - 2.0) / 38.0) ** 2))
    top = np.float32(rng.uniform(222, 236)) - grid.z
    for name, side in (("lung_right", 1.0), ("lung_left", -1.0)):
        medial = side * grid.x - middle
        distance = np.minimum.reduce([scene.cage - 8.0, scene.diaphragm - 2.0, top, medial]).astype(
            np.float32
        )
        lung = grid.whole(distance)
        scene.paint("lung", lung, name)
        mottle = grid.noise(rng, 14.0)
        scene.paint("lung_vessel", lung.grown(-8).within((mottle - 1.3) * 5.0), KEEP)


def paint_mediastinum(rng: np.random.Generator, scene: Scene) -> None:
    """Trachea and bronchi, oesophagus, and the great vessels but the aorta."""
    grid, windpipe = (
        scene.grid,
        np.array([(3, -14, 270), (1, -14, 190), (0, -12, 138)]) + rng.normal(0, 2, 3),
    )
    scene.paint("soft", tube(grid, windpipe, 11.0))
    scene.paint("air", tube(grid, windpipe, 8.0))
    for side in (1, -1):
        bronchus = [windpipe[-1], (side * 28, -16, 122), (side * 52, -14, 108)]
        scene.paint("air", tube(grid, bronchus, [7.0, 6.0, 4.0]).within(scene.cage - 10.0))
    scene.paint(
        "soft", tube(grid, [(-2, -36, 240), (-3, -38, 130), (-8, -30, 80), (-22, -8, 42)], 7.0)
    )
    scene.paint("vein", tube(grid, [(26, 2, 105), (26, 4, 150), (20, 8, 205)], 9.0))
    scene.paint("artery", tube(grid, [(-14, 34, 125), (-20, 16, 150), (-30, -6, 148)], 11.0))
    scene.paint("artery", tube(grid, [(-20, 8, 146), (10, 0, 142), (42, -6, 130)], 8.0))


def paint_heart(rng: np.random.Generator, scene: Scene) -> None:
    """The heart on its diaphragm, apex to the left and front, with four chambers."""
    grid = scene.grid
    centre = rng.normal(0, 3, 3) + point(-20, 24, 96 + 0.6 * scene.habitus.breath_mm)
    axis = rng.normal(0, 0.08, 3) + point(-0.76, 0.48, -0.42)
    axis /= np.linalg.norm(axis)
    heart = ellipsoid(grid, centre, rng.normal(1.0, 0.07) * np.array([64.0, 44.0, 46.0]), axis)
    heart = heart.within(scene.diaphragm - 1.0)
    scene.paint("myocardium", heart, "heart", gap_mm=2.0 + 0.5 * scene.habitus.gap_mm)
    inside = grid.spread(heart) - np.float32(4.0)
    for along, across, radii, blood in (
        (14, point(-7, -10, 5), (34, 16, 17), "artery"),
        (6, point(10, 15, -10), (36, 12, 20), "vein"),
        (-36, point(-14, -12, 10), (14, 20, 18), "artery"),
        (-32, point(8, 12, -4), (16, 20, 22), "vein"),
    ):
        chamber = ellipsoid(grid, centre + along * axis + across, radii, axis)
        scene.paint(blood, chamber.within(inside), KEEP)


def paint_aorta(rng: np.random.Generator, scene: Scene) -> None:
    """The aorta from the valve over the arch to its fork, the iliac arteries, and the cava beside it."""
    grid, age = scene.grid, scene.habitus.arteries
    size = rng.normal(1.0, 0.06) + 0.25 * age
    bends = rng.normal(0, 1.0 + 4.0 * age, (11, 3)) * np.array([1, 0.5, 0.3])
    arch = rng.normal(178, 5)
    points = np.array(
        [(2, 18, 112), (14, 30, 135), (12, 22, arch - 16), (-4, 0, arch), (-19, -26, arch - 14),
         (-21, -40, 140), (-17, -42, 90), (-10, -40, 30), (-6, -36, -30), (-5, -32, -80), (-3, -30, -118)]
    ) + bends  # fmt: skip
    radii = size * np.array([15.0, 15.5, 14.5, 13.5, 12.5, 12, 11.5, 11.2, 10.6, 9.8, 9.0])
    end = points[-1]
    for side in (-1, 1):
        iliac = [
            end,
            end + point(side * 16, 0, -32),
            end + point(side * 40, 10, -75),
            end + point(side * 60, 25, -120),
        ]
        scene.paint("artery", tube(grid, iliac, size * np.array([6.0, 6, 5.5, 5])))
    cava = [(14, 10, 88), (22, -14, 50), (20, -32, 0), (20, -36, -60), (12, -38, -122)]
    scene.paint("vein", tube(grid, cava, rng.normal(11, 1.2)))
    aorta = tube(grid, points, radii)
    scene.paint("artery", aorta, "aorta", gap_mm=2.0)
    if age > 0.35:
        spots = grid.noise(rng, 12.0) - np.float32(2.4 - 1.5 * age)
        rim = Shape(aorta.box, np.minimum(aorta.distance, 3.0 - aorta.distance))
        scene.paint("cortical", rim.within(spots * 4.0), KEEP)


def paint_spine(rng: np.random.Generator, scene: Scene) -> None:
    """Vertebral bodies with a cortical shell, discs, arches, processes and the canal."""
    grid, habitus = scene.grid, scene.habitus
    z = grid.z
    x = grid.x - habitus.scoliosis_mm * np.sin((z + rng.uniform(-60, 60)) / 75.0)
    curve = np.interp(z, [-260, -190, -110, -20, 110, 250], [-88, -72, -60, -68, -76, -66])
    y = (grid.y - curve + (habitus.kyphosis_mm - 10) * np.sin((z - 20) / 100.0)).astype(np.float32)
    level = np.interp(
        z, [-260, -12, 270], [-8.0, 0.0, 282 / RIB_PITCH]
    )  # 0 is the twelfth thoracic one
    pitch = np.where(z < -12, np.float32(31.0), np.float32(RIB_PITCH))
    off = np.abs(level - np.round(level)) * pitch
    wide = np.interp(z, [-260, -100, 0, 250], [29, 25, 21, 15]) * rng.normal(1.0, 0.04)
    column = _oval(x, y, wide.astype(np.float32), np.float32(0.76) * wide.astype(np.float32))
    disc = np.interp(z, [-100, 250], [4.6, 2.6]) * rng.uniform(0.6, 1.1)
    body = np.minimum(column, pitch / 2 - disc - off).astype(np.float32)
    behind = y + 0.76 * wide + 8.0
    ring = 9.0 + 7.0 - np.hypot(x / 1.15, behind)
    arch = np.minimum(ring, pitch / 2 - 1.5 - off)
    spinous = np.minimum.reduce([4.5 - np.abs(x), behind + 34.0, -behind - 5.0, 9.0 - off])
    lateral = np.minimum.reduce([6.0 - np.abs(behind + 4.0), 36.0 - np.abs(x), 5.5 - off])
    bone = np.minimum(np.maximum.reduce([body, arch, spinous, lateral]), scene.flesh - 2.0).astype(
        np.float32
    )
    soft = np.maximum(column + 2.5, np.minimum(26.0 - np.abs(x), 4.0 - behind)).astype(np.float32)
    scene.paint("muscle", grid.whole(np.minimum(soft, scene.flesh)))
    scene.paint("disc", grid.whole(column))
    scene.paint("cortical", grid.whole(bone), "vertebrae")
    scene.paint(
        "spongiosa", grid.whole(np.maximum(body - 2.0, np.minimum(lateral, arch) - 2.5)), KEEP
    )
    scene.paint("cord", grid.whole((9.0 - np.hypot(x / 1.15, behind)).astype(np.float32)))


def paint_ribs(rng: np.random.Generator, scene: Scene) -> None:
    """Twelve pairs of ribs with their cartilage, sternum, shoulder blades and pelvis."""
    grid = scene.grid
    turn = np.arctan2(np.abs(grid.x), -(grid.y + 2.0)) / np.float32(
        np.pi
    )  # 0 at the back, 1 in front
    drop = (
        np.float32(rng.normal(62, 6))
        * np.sin(np.clip(turn / 0.8, 0, 1) * np.float32(np.pi / 2)) ** 1.5
    )
    level = (grid.z + drop - LOWEST_RIB) / np.float32(RIB_PITCH)
    number = np.clip(np.round(level), 0, 11).astype(np.int8)
    off = np.abs(level - number) * np.float32(RIB_PITCH)
    bony = np.array([0.3, 0.42, 0.58, 0.68] + [0.74] * 6 + [0.78, 0.84])[number] - turn
    soft = np.array([0.3, 0.44, 0.72, 0.86] + [0.93] * 8)[number] - turn
    bar = np.minimum(4.6 - np.abs(scene.cage), 6.3 - off)
    bar = np.minimum(bar, (turn - 0.09) * 250.0).astype(np.float32)
    scene.paint("cartilage", grid.whole(np.minimum(bar, (soft * 250.0).astype(np.float32))))
    rib = np.minimum(bar, (bony * 250.0).astype(np.float32))
    scene.paint("cortical", grid.whole(rib), "ribs")
    scene.paint("spongiosa", grid.whole(rib - 2.2), KEEP)
    height = 95.0 - np.abs(grid.z - 95.0)
    slab = np.minimum.reduce([6.0 - np.abs(scene.cage), 20.0 - np.abs(grid.x), height, grid.y])
    scene.paint("spongiosa", grid.whole(slab.astype(np.float32)))
    for side in (-1.0, 1.0):
        scene.paint(
            "cortical",
            ellipsoid(grid, (side * 104, -80, 165), (58, 5, 34), (-0.15 * side, 0.15, 1.0)),
        )
        wing = ellipsoid(grid, (side * 95, -40, -225), (62, 58, 9), (0.35 * side, 0.0, 1.0))
        scene.paint("cortical", wing)
        scene.paint("spongiosa", wing.grown(-3.0))


def _oval(x: Float, y: Float, width: Float | float, depth: Float | float) -> Float:
    # a superellipse: a torso is squarer than an ellipse
    norm = ((np.abs(x) / width) ** 2.4 + (np.abs(y) / depth) ** 2.4) ** np.float32(1 / 2.4)
    return np.asarray(
        (1.0 - norm) * np.minimum(np.hypot(x, y) / np.maximum(norm, 0.05), width), np.float32
    )
