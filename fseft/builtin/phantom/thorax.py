"""Body wall, bones, lungs, heart and great vessels of the phantom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fseft.builtin.phantom.shapes import KEEP, Grid, Shape, ellipsoid, point, tube

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fseft.builtin.phantom.anatomy import Habitus, Scene
    from fseft.builtin.phantom.shapes import Float

# Half width and half depth of rib cage and abdominal wall by height, and of the shoulders around.
HEIGHT = np.array([-260.0, -150, -60, 0, 60, 120, 170, 205, 230, 245, 260])
WIDTH = np.array([134.0, 127, 130, 135, 137, 130, 112, 90, 64, 40, 30])
DEPTH = np.array([88.0, 88, 92, 97, 99, 93, 80, 66, 50, 36, 30])
SHOULDER = np.array([0.0, 0, 0, 0, 2, 14, 45, 72, 80, 78, 60])
RIB_PITCH, LOWEST_RIB = 22.5, -12.0

# Points of curves (x, y, z) and radii, in mm of the reference body.
_PSOAS = ((26, -62, -20), (38, -58, -80), (50, -48, -140), (62, -30, -250))
_WINDPIPE = ((3, -14, 270), (1, -14, 190), (0, -12, 138))
_BRONCHUS = ((28, -16, 122), (52, -14, 108))
_OESOPHAGUS = ((-2, -36, 240), (-3, -38, 130), (-8, -30, 80), (-22, -8, 42))
_SUPERIOR_CAVA = ((26, 2, 105), (26, 4, 150), (20, 8, 205))
_PULMONARY_TRUNK = ((-14, 34, 125), (-20, 16, 150), (-30, -6, 148))
_PULMONARY_ARTERY = ((-20, 8, 146), (10, 0, 142), (42, -6, 130))
_CHAMBERS = (  # position along the axis and across it, radii, blood
    (14, (-7, -10, 5), (34, 16, 17), "artery"),
    (6, (10, 15, -10), (36, 12, 20), "vein"),
    (-36, (-14, -12, 10), (14, 20, 18), "artery"),
    (-32, (8, 12, -4), (16, 20, 22), "vein"),
)
_AORTA_ASCENDING = ((2, 18, 112), (14, 30, 135))
_AORTA_ARCH = ((12, 22, -16), (-4, 0, 0), (-19, -26, -14))  # heights relative to the arch
_AORTA_DESCENDING = (
    (-21, -40, 140), (-17, -42, 90), (-10, -40, 30), (-6, -36, -30), (-5, -32, -80),
    (-3, -30, -118),
)  # fmt: skip
_AORTA_RADII = (15.0, 15.5, 14.5, 13.5, 12.5, 12, 11.5, 11.2, 10.6, 9.8, 9.0)
_ILIAC = ((16, 0, -32), (40, 10, -75), (60, 25, -120))  # relative to the fork of the aorta
_INFERIOR_CAVA = ((14, 10, 88), (22, -14, 50), (20, -32, 0), (20, -36, -60), (12, -38, -122))
_SPINE_HEIGHT = (-260, -190, -110, -20, 110, 250)
_SPINE_CURVE = (-88, -72, -60, -68, -76, -66)
_VERTEBRA_WIDTH = ((-260, -100, 0, 250), (29, 25, 21, 15))  # half of it, by height
_DISC_HEIGHT = ((-100, 250), (4.6, 2.6))  # half of it, by height
_BONY_PART = (0.3, 0.42, 0.58, 0.68, *[0.74] * 6, 0.78, 0.84)  # of each rib, from the back
_RIB_PART = (0.3, 0.44, 0.72, 0.86, *[0.93] * 8)  # with its cartilage


@dataclass(frozen=True)
class _Spine:
    """Position of each voxel relative to the vertebral column, in mm.

    Attributes:
        x: Position to the right of the column.
        behind: Position anterior of the centre of the canal.
        column: Distance to the surface of the column.
        body: Distance to the surface of the vertebral bodies.
        arch_height: Distance to the upper and lower edges of the arches.
        off: Distance to the middle of the nearest vertebra.
    """

    x: NDArray[Any]
    behind: NDArray[Any]
    column: Float
    body: Float
    arch_height: NDArray[Any]
    off: NDArray[Any]


def cage(grid: Grid, habitus: Habitus) -> Float:
    """Returns the distance (i, j, k) in mm to the surface of the ribs, positive inside."""
    lower = np.clip((20.0 - grid.z) / 80.0, 0, 1)
    belly = lower * np.float32(habitus.belly_mm / 2)
    flanks = belly * np.float32(0.4)
    width = _at_height(grid, WIDTH) + flanks
    depth = _at_height(grid, DEPTH) + belly
    return _oval(grid.x, grid.y - belly, width, depth)


def _at_height(grid: Grid, values: NDArray[np.float64]) -> Float:
    """Interpolates values at `HEIGHT` to the height of each voxel."""
    return np.interp(grid.z, HEIGHT, values).astype(np.float32)


def diaphragm(rng: np.random.Generator, grid: Grid, habitus: Habitus) -> Float:
    """Returns the height (i, j, k) in mm above the diaphragm: two domes and the heart's floor."""
    right_mm = 72.0 + habitus.breath_mm + rng.normal(0, 3)
    left_mm = right_mm - rng.uniform(4, 20)
    domes = [
        (right_mm, 70.0, 5.0, 80.0),
        (left_mm, -70.0, 5.0, 80.0),
        (left_mm - 10, -8.0, 25.0, 70.0),
    ]
    surfaces = []
    for top, x, y, ry in domes:
        squared_radius = ((grid.x - x) / 60.0) ** 2 + ((grid.y - y) / ry) ** 2
        surfaces.append(top - 42.0 * squared_radius)
    surface = np.maximum.reduce(surfaces)
    return np.asarray(grid.z - surface, np.float32)


def flesh(rng: np.random.Generator, grid: Grid, cage: Float) -> Float:
    """Returns the distance in mm to the outside of the muscles of cage, shoulders and back."""
    shoulder = _at_height(grid, SHOULDER)
    muscle = cage + np.float32(rng.uniform(5, 11))
    lateral = np.clip(np.abs(grid.x) / 100.0, 0, 1)
    wall = muscle + shoulder * lateral
    back = _oval(grid.x, grid.y + 78.0, 72.0, 40.0)
    return np.asarray(np.maximum(wall, back), np.float32)


def paint_wall(rng: np.random.Generator, scene: Scene) -> None:
    """Paints skin, subcutaneous fat, muscles, and the fat that fills the cavity."""
    grid = scene.grid
    variation = np.float32(1.0) + np.float32(0.25) * grid.noise(rng, 90.0)
    fat: Float = scene.flesh + np.float32(scene.habitus.fat_mm) * variation
    scene.paint("skin", grid.whole(fat + np.float32(2.5)))
    scene.paint("fat", grid.whole(fat))
    scene.paint("muscle", grid.whole(scene.flesh))
    scene.paint("fat", grid.whole(scene.cage - 4.0))
    sheet = 2.5 - np.abs(scene.diaphragm)
    scene.paint("muscle", grid.whole(np.minimum(sheet, scene.cage)))
    _paint_back_muscles(scene, rng.uniform(0.85, 1.2))


def _paint_back_muscles(scene: Scene, bulk: float) -> None:
    """Paints the erector spinae and psoas muscles, with radii relative to `bulk`."""
    grid = scene.grid
    for side in (-1.0, 1.0):
        erector = [
            (side * 28.0, -100.0, 240.0),
            (side * 30, -98, 0),
            (side * 34.0, -96.0, -260.0),
        ]
        muscle = tube(grid, erector, bulk * np.array([20, 24, 27]))
        scene.paint("muscle", muscle.within(scene.flesh))
        psoas = [(side * x, y, z) for x, y, z in _PSOAS]
        scene.paint("muscle", tube(grid, psoas, bulk * np.array([7.0, 15, 21, 24])))


def paint_lungs(rng: np.random.Generator, scene: Scene) -> None:
    """Paints both lungs: the cage above the diaphragm, without the mediastinum."""
    grid = scene.grid
    hilum = np.exp(-(((grid.z - 125.0) / 45.0) ** 2))
    depth = np.exp(-(((grid.y - 2.0) / 38.0) ** 2))
    mediastinum = 9.0 + (16.0 + 12.0 * hilum) * depth
    top = np.float32(rng.uniform(222, 236)) - grid.z
    for name, side in (("lung_right", 1.0), ("lung_left", -1.0)):
        bounds = [
            scene.cage - 8.0,
            scene.diaphragm - 2.0,
            top,
            side * grid.x - mediastinum,
        ]
        lung = grid.whole(np.minimum.reduce(bounds).astype(np.float32))
        scene.paint("lung", lung, name)
        vessels = (grid.noise(rng, 14.0) - 1.3) * 5.0
        scene.paint("lung_vessel", lung.grown(-8).within(vessels), KEEP)


def paint_mediastinum(rng: np.random.Generator, scene: Scene) -> None:
    """Paints trachea and bronchi, oesophagus, and the great vessels except the aorta."""
    grid = scene.grid
    windpipe = np.array(_WINDPIPE) + rng.normal(0, 2, 3)
    scene.paint("soft", tube(grid, windpipe, 11.0))
    scene.paint("air", tube(grid, windpipe, 8.0))
    for side in (1, -1):
        bronchus = [windpipe[-1], *((side * x, y, z) for x, y, z in _BRONCHUS)]
        lumen = tube(grid, bronchus, [7.0, 6.0, 4.0])
        scene.paint("air", lumen.within(scene.cage - 10.0))
    scene.paint("soft", tube(grid, _OESOPHAGUS, 7.0))
    scene.paint("vein", tube(grid, _SUPERIOR_CAVA, 9.0))
    scene.paint("artery", tube(grid, _PULMONARY_TRUNK, 11.0))
    scene.paint("artery", tube(grid, _PULMONARY_ARTERY, 8.0))


def paint_heart(rng: np.random.Generator, scene: Scene) -> None:
    """Paints the heart with four chambers, its apex to the left and anterior."""
    grid = scene.grid
    height = 96 + 0.6 * scene.habitus.breath_mm
    centre = rng.normal(0, 3, 3) + point(-20, 24, height)
    axis = rng.normal(0, 0.08, 3) + point(-0.76, 0.48, -0.42)
    axis /= np.linalg.norm(axis)
    radii = rng.normal(1.0, 0.07) * np.array([64.0, 44.0, 46.0])
    heart = ellipsoid(grid, centre, radii, axis).within(scene.diaphragm - 1.0)
    gap_mm = 2.0 + 0.5 * scene.habitus.gap_mm
    scene.paint("myocardium", heart, "heart", gap_mm=gap_mm)
    inside = grid.spread(heart) - np.float32(4.0)
    for position, across, chamber_radii, blood in _CHAMBERS:
        chamber_centre = centre + position * axis + point(*across)
        chamber = ellipsoid(grid, chamber_centre, chamber_radii, axis)
        scene.paint(blood, chamber.within(inside), KEEP)


def paint_aorta(rng: np.random.Generator, scene: Scene) -> None:
    """Paints the aorta to its fork, the iliac arteries and the inferior vena cava."""
    grid, age = scene.grid, scene.habitus.arteries
    size = rng.normal(1.0, 0.06) + 0.25 * age
    bends = rng.normal(0, 1.0 + 4.0 * age, (11, 3))
    bends = bends * np.array([1, 0.5, 0.3])
    top = rng.normal(178, 5)
    arch = [(x, y, top + z) for x, y, z in _AORTA_ARCH]
    points = np.array([*_AORTA_ASCENDING, *arch, *_AORTA_DESCENDING]) + bends
    _paint_iliac_arteries(scene, points[-1], size)
    scene.paint("vein", tube(grid, _INFERIOR_CAVA, rng.normal(11, 1.2)))
    aorta = tube(grid, points, size * np.array(_AORTA_RADII))
    scene.paint("artery", aorta, "aorta", gap_mm=2.0)
    if age > 0.35:
        _paint_calcifications(rng, scene, aorta)


def _paint_calcifications(rng: np.random.Generator, scene: Scene, aorta: Shape) -> None:
    threshold = np.float32(2.4 - 1.5 * scene.habitus.arteries)
    spots = scene.grid.noise(rng, 12.0) - threshold
    wall = np.minimum(aorta.distance, 3.0 - aorta.distance)
    calcification = Shape(aorta.box, wall).within(spots * 4.0)
    scene.paint("cortical", calcification, KEEP)


def _paint_iliac_arteries(scene: Scene, fork: NDArray[np.float64], size: float) -> None:
    radii = size * np.array([6.0, 6, 5.5, 5])
    for side in (-1, 1):
        course = [fork]
        for x, y, z in _ILIAC:
            course.append(fork + point(side * x, y, z))
        scene.paint("artery", tube(scene.grid, course, radii))


def paint_spine(rng: np.random.Generator, scene: Scene) -> None:
    """Paints vertebral bodies with a cortical shell, discs, arches, processes and the canal."""
    spine = _random_spine(rng, scene.grid, scene.habitus)
    _paint_vertebrae(scene, spine)
    canal = 9.0 - np.hypot(spine.x / 1.15, spine.behind)
    scene.paint("cord", scene.grid.whole(canal.astype(np.float32)))


def _random_spine(rng: np.random.Generator, grid: Grid, habitus: Habitus) -> _Spine:
    """Draws the curves of a spine, the width of its vertebrae and the height of its discs."""
    z = grid.z
    x, y = _around_spine(rng, grid, habitus)
    pitch = np.where(z < -12, np.float32(31.0), np.float32(RIB_PITCH))
    half_pitch = pitch / 2
    off = _distance_from_level(z) * pitch
    width = np.interp(z, *_VERTEBRA_WIDTH) * rng.normal(1.0, 0.04)
    half_width = width.astype(np.float32)
    half_depth = np.float32(0.76) * half_width
    column = _oval(x, y, half_width, half_depth)
    disc = np.interp(z, *_DISC_HEIGHT) * rng.uniform(0.6, 1.1)
    body_height = half_pitch - disc - off
    body = np.minimum(column, body_height).astype(np.float32)
    arch_height = half_pitch - 1.5 - off
    behind = y + 0.76 * width + 8.0
    return _Spine(x, behind, column, body, arch_height, off)


def _around_spine(
    rng: np.random.Generator, grid: Grid, habitus: Habitus
) -> tuple[NDArray[Any], Float]:
    """Returns the positions to the right and anterior of the centre of the column, in mm."""
    phase = (grid.z + rng.uniform(-60, 60)) / 75.0
    scoliosis = habitus.scoliosis_mm * np.sin(phase)
    unusual_mm = habitus.kyphosis_mm - 10
    kyphosis = unusual_mm * np.sin((grid.z - 20) / 100.0)
    curve = np.interp(grid.z, _SPINE_HEIGHT, _SPINE_CURVE)
    y = grid.y - curve + kyphosis
    return grid.x - scoliosis, y.astype(np.float32)


def _distance_from_level(z: Float) -> Float:
    """Returns the distance to the middle of the nearest vertebra, as a fraction of its pitch."""
    heights = [-260, -12, 270]
    levels = [-8.0, 0.0, 282 / RIB_PITCH]  # 0 is T12
    level = np.interp(z, heights, levels)
    distance = np.abs(level - np.round(level))
    return np.asarray(distance)


def _paint_vertebrae(scene: Scene, spine: _Spine) -> None:
    """Paints muscles around the column, discs and bones."""
    grid = scene.grid
    arch = _vertebral_arches(spine)
    spinous = _spinous_processes(spine)
    lateral = _transverse_processes(spine)
    bones = np.maximum.reduce([spine.body, arch, spinous, lateral])
    bone = np.minimum(bones, scene.flesh - 2.0).astype(np.float32)
    posterior_marrow = np.minimum(lateral, arch) - 2.5
    marrow = np.maximum(spine.body - 2.0, posterior_marrow)
    muscle = np.minimum(_paravertebral_muscles(spine), scene.flesh)
    scene.paint("muscle", grid.whole(muscle))
    scene.paint("disc", grid.whole(spine.column))
    scene.paint("cortical", grid.whole(bone), "vertebrae")
    scene.paint("spongiosa", grid.whole(marrow), KEEP)


def _vertebral_arches(spine: _Spine) -> NDArray[Any]:
    """Returns the distance to rings around the canal, in mm."""
    distance = np.hypot(spine.x / 1.15, spine.behind)
    ring = 16.0 - distance
    return np.asarray(np.minimum(ring, spine.arch_height))


def _spinous_processes(spine: _Spine) -> NDArray[Any]:
    across = 4.5 - np.abs(spine.x)
    tip = spine.behind + 34.0
    base = -spine.behind - 5.0
    height = 9.0 - spine.off
    return np.asarray(np.minimum.reduce([across, tip, base, height]))


def _transverse_processes(spine: _Spine) -> NDArray[Any]:
    thickness = 6.0 - np.abs(spine.behind + 4.0)
    across = 36.0 - np.abs(spine.x)
    height = 5.5 - spine.off
    return np.asarray(np.minimum.reduce([thickness, across, height]))


def _paravertebral_muscles(spine: _Spine) -> Float:
    """Returns the distance to the muscles around the column and its arches, in mm."""
    sides = np.minimum(26.0 - np.abs(spine.x), 4.0 - spine.behind)
    muscles = np.maximum(spine.column + 2.5, sides)
    return np.asarray(muscles, np.float32)


def paint_ribs(rng: np.random.Generator, scene: Scene) -> None:
    """Paints twelve pairs of ribs with their cartilage, sternum, shoulder blades and pelvis."""
    grid = scene.grid
    turn = _turn(grid)
    level = _rib_level(rng, grid, turn)
    number = np.clip(np.round(level), 0, 11).astype(np.int8)
    off = np.abs(level - number) * np.float32(RIB_PITCH)
    bar = np.minimum(4.6 - np.abs(scene.cage), 6.3 - off)
    bar = np.minimum(bar, (turn - 0.09) * 250.0).astype(np.float32)
    cartilage = np.minimum(bar, _rib_end(_RIB_PART, number, turn))
    rib = np.minimum(bar, _rib_end(_BONY_PART, number, turn))
    scene.paint("cartilage", grid.whole(cartilage))
    scene.paint("cortical", grid.whole(rib), "ribs")
    scene.paint("spongiosa", grid.whole(rib - 2.2), KEEP)
    _paint_flat_bones(scene)


def _turn(grid: Grid) -> Float:
    """Returns the angle of each voxel around the body, from 0 at the back to 1 at the front."""
    lateral = np.abs(grid.x)
    posterior = -(grid.y + 2.0)
    angle = np.arctan2(lateral, posterior)
    return np.asarray(angle / np.float32(np.pi))


def _rib_level(rng: np.random.Generator, grid: Grid, turn: Float) -> Float:
    """Returns the height above the lowest ribs in pitches, along ribs that descend to the front."""
    quarter = np.clip(turn / 0.8, 0, 1)
    quarter = quarter * np.float32(np.pi / 2)
    depth_mm = np.float32(rng.normal(62, 6))
    drop = depth_mm * np.sin(quarter) ** 1.5
    level = (grid.z + drop - LOWEST_RIB) / np.float32(RIB_PITCH)
    return np.asarray(level)


def _rib_end(parts: tuple[float, ...], number: NDArray[np.int8], turn: Float) -> Float:
    """Returns about the distance in mm to the anterior end of the nearest rib."""
    end = np.array(parts)[number]
    distance = (end - turn) * 250.0
    return np.asarray(distance, np.float32)


def _paint_flat_bones(scene: Scene) -> None:
    """Paints sternum, shoulder blades and iliac wings, which are not labelled."""
    grid = scene.grid
    height = 95.0 - np.abs(grid.z - 95.0)
    sternum = [6.0 - np.abs(scene.cage), 20.0 - np.abs(grid.x), height, grid.y]
    slab = np.minimum.reduce(sternum).astype(np.float32)
    scene.paint("spongiosa", grid.whole(slab))
    for side in (-1.0, 1.0):
        blade_axis = (-0.15 * side, 0.15, 1.0)
        blade = ellipsoid(grid, (side * 104, -80, 165), (58, 5, 34), blade_axis)
        scene.paint("cortical", blade)
        wing_axis = (0.35 * side, 0.0, 1.0)
        wing = ellipsoid(grid, (side * 95, -40, -225), (62, 58, 9), wing_axis)
        scene.paint("cortical", wing)
        scene.paint("spongiosa", wing.grown(-3.0))


def _oval(x: Float, y: Float, width: Float | float, depth: Float | float) -> Float:
    """Returns about the distance in mm to a superellipse, as torsos are squarer than ellipses."""
    across = (np.abs(x) / width) ** 2.4
    along = (np.abs(y) / depth) ** 2.4
    norm = (across + along) ** np.float32(1 / 2.4)
    scale = np.maximum(norm, 0.05)
    radius = np.hypot(x, y) / scale
    distance = (1.0 - norm) * np.minimum(radius, width)
    return np.asarray(distance, np.float32)
