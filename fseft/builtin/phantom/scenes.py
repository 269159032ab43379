"""Scenes of abstract organs: shapes of the kinds that organs have, in boxes of any size.

An atlas defines the common properties of its individuals, as all people have the liver on the
right. An individual is moved, scaled, rotated and deformed, among distractors: shapes that belong
to no atlas (cf. Dey et al. 2024, arXiv:2411.02372).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fseft.builtin.phantom.anatomy import fill
from fseft.builtin.phantom.shapes import KEEP, Grid, Shape, ellipsoid, smooth_noise, tube

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from fseft.builtin.phantom.anatomy import Layer
    from fseft.builtin.phantom.shapes import Float

    Vector = NDArray[np.float64]

ORGANS = ("shell", "pair_right", "pair_left", "solid", "core", "front", "back", "duct")
"""A sheet around the centre, a pair, a solid with a core, a solid in two halves, and a tube."""
ALIKE = {"pair_right": "pair", "pair_left": "pair", "front": "halves", "back": "halves"}
"""Tissue of organs that differ only in their position."""
GROUNDS, STRAYS, LESIONS = 4, 10, 4

HU: dict[str, tuple[float, float]] = {
    "air": (-1000.0, -960.0),
    "shell": (150.0, 900.0),
    "pair": (-20.0, 110.0),
    "solid": (20.0, 150.0),
    "core": (-20.0, 280.0),
    "halves": (0.0, 120.0),
    "duct": (-30.0, 300.0),
    **{f"ground-{n}": (-130.0, 90.0) for n in range(GROUNDS)},
    **{f"stray-{n}": (-900.0, -400.0) if n % 7 == 0 else (-130.0, 320.0) for n in range(STRAYS)},
    **{f"lesion-{n}": (-130.0, 320.0) for n in range(LESIONS)},
}
"""Range of each tissue in CT; in MR, any tissue may be bright or dark."""


@dataclass(frozen=True)
class Ovoid:
    """An ellipsoid of an atlas.

    Attributes:
        centre: Position (x, y, z), (3,); from -1 to 1 in an atlas, in mm for an individual.
        radii: Radii (3,) in the unit of the centre, the first along `axis`.
        axis: Direction of the first radius, (3,).
    """

    centre: Vector
    radii: Vector
    axis: Vector

    def mirrored(self) -> Ovoid:
        """Returns the mirror image at the midline."""
        mirror = np.array([-1.0, 1.0, 1.0])
        centre, axis = self.centre * mirror, self.axis * mirror
        return Ovoid(centre, self.radii, axis)

    def individual(self, rng: np.random.Generator, reach_mm: float) -> Ovoid:
        """Returns a variant for one individual, in mm.

        Args:
            rng: Source of the variation.
            reach_mm: Half-size of the atlas.
        """
        centre = self.centre + rng.normal(0, 0.04, 3)
        return Ovoid(
            reach_mm * centre,
            reach_mm * self.radii * rng.normal(1, 0.1, 3).clip(0.7, 1.3),
            self.axis,
        )

    def shape(self, grid: Grid) -> Shape:
        """Returns the solid on a grid."""
        return ellipsoid(grid, self.centre, self.radii, self.axis)

    def ahead(self, grid: Grid) -> Float:
        """Returns the distance (i, j, k) in mm from the centre along the axis, a unit vector."""
        distance = 0.0
        positions = (grid.x, grid.y, grid.z)
        for a, position, c in zip(self.axis, positions, self.centre, strict=True):
            distance = distance + a * (position - c)
        return np.asarray(distance, np.float32)


@dataclass(frozen=True)
class Atlas:
    """Position and size of organs: x to the right, y to anterior, z to superior, from -1 to 1.

    Attributes:
        reach_mm: Unit of positions and radii in mm: half the size of the atlas.
        shell: A sheet around the centre.
        pair: The right one of a pair; the left one is its mirror image.
        solid: A solid with a core.
        halves: A solid in two halves.
        duct: Points (4, 3) of the curve of a tube.
    """

    reach_mm: float
    shell: Ovoid
    pair: Ovoid
    solid: Ovoid
    halves: Ovoid
    duct: Vector


def random_atlas(rng: np.random.Generator, reach_mm: float) -> Atlas:
    """Draws an atlas of half-size `reach_mm`.

    Args:
        rng: Source of positions and sizes.
        reach_mm: Half-size of the atlas.
    """
    side = rng.choice([-1.0, 1.0], 3)
    solid_radii = rng.uniform(0.2, 0.36, 3)
    return Atlas(
        reach_mm,
        shell=Ovoid(np.zeros(3), rng.uniform(0.65, 0.9, 3), rng.normal(size=3)),
        pair=Ovoid(
            np.array([rng.uniform(0.4, 0.6), *rng.uniform(-0.4, 0.4, 2)]), *_slender(rng, 1.5)
        ),
        solid=Ovoid(
            side * rng.uniform((0.0, 0.2, 0.2), (0.25, 0.5, 0.5)), solid_radii, rng.normal(size=3)
        ),
        halves=Ovoid(-side * rng.uniform(0.0, 0.3, 3), *_slender(rng, 2.5)),
        duct=rng.uniform(-0.75, 0.75, (4, 3)),
    )


def random_grid(
    rng: np.random.Generator, reach_mm: float, shape: Sequence[int], spacing_mm: Sequence[float]
) -> Grid:
    """Returns the grid of an individual, which is moved, scaled, rotated and deformed.

    Args:
        rng: Source of the transformation.
        reach_mm: Half-size of the atlas.
        shape: Voxels (i, j, k).
        spacing_mm: Voxel size along the same axes.
    """
    shift = reach_mm * rng.normal(0, 0.08, (3, 1, 1, 1))
    position = _positions(shape, spacing_mm) - shift
    rotation = rng.normal(0, 0.12, (3, 3))
    turn = np.eye(3) + rotation * rng.choice([0.5, 1.0, 2.0])
    bend = reach_mm * rng.uniform(0.02, 0.09)
    turned = np.einsum("ab,bijk->aijk", turn / rng.uniform(0.8, 1.2), position)
    x, y, z = (
        np.float32(bend) * smooth_noise(rng, shape, spacing_mm, 0.7 * reach_mm)
        + np.float32(0.25 * bend) * smooth_noise(rng, shape, spacing_mm, 0.25 * reach_mm)
        + axis.astype(np.float32)
        for axis in turned
    )
    i, j, k = spacing_mm
    return Grid(x, y, z, (i, j, k))


def _positions(shape: Sequence[int], spacing_mm: Sequence[float]) -> Vector:
    """Returns the position (3, i, j, k) of each voxel from the centre of the volume, in mm."""
    axes = []
    for size, mm in zip(shape, spacing_mm, strict=True):
        axes.append((np.arange(size) - (size - 1) / 2) * mm)
    return np.stack(np.meshgrid(*axes, indexing="ij"))


def build_scene(
    rng: np.random.Generator, atlas: Atlas, shape: Sequence[int], spacing_mm: Sequence[float]
) -> list[Layer]:
    """Builds one individual of an atlas on a voxel grid.

    Args:
        rng: Source of the variation between individuals.
        atlas: Common properties of individuals.
        shape: Voxels (i, j, k); the axes are RAS.
        spacing_mm: Voxel size in mm along each axis.

    Returns:
        Layers in painting order, labelled as in `ORGANS` from 1.
    """
    grid = random_grid(rng, atlas.reach_mm, shape, spacing_mm)
    organs = zip(ORGANS, _organs(rng, grid, atlas), strict=True)
    return [
        *_grounds(rng, grid, atlas.reach_mm),
        *(
            fill(grid, f"stray-{n}", _stray(rng, grid, atlas.reach_mm, 0.3), 0)
            for n in range(STRAYS)
        ),
        *(
            fill(grid, ALIKE.get(name, name), solid, number)
            for number, (name, solid) in enumerate(organs, start=1)
        ),
        *(
            fill(grid, f"lesion-{n}", _stray(rng, grid, atlas.reach_mm, 0.1), KEEP)
            for n in range(LESIONS)
        ),
    ]


def _grounds(rng: np.random.Generator, grid: Grid, reach_mm: float) -> Iterator[Layer]:
    """Yields the surroundings of organs: a body that may end within the box, and regions of it."""
    body = np.full(grid.shape, np.float32(reach_mm))
    if rng.uniform() < 0.5:
        body = grid.spread(ellipsoid(grid, (0, 0, 0), reach_mm * rng.uniform(0.95, 1.6, 3)))
    yield fill(grid, "ground-0", grid.whole(body), 0)
    for n in range(1, GROUNDS):
        wave = float(reach_mm * rng.uniform(0.25, 0.9))
        region = np.float32(0.4 * wave) * (
            grid.noise(rng, wave) - np.float32(rng.uniform(0.0, 1.0))
        )
        yield fill(grid, f"ground-{n}", grid.whole(np.minimum(region, body)), 0)


def _organs(rng: np.random.Generator, grid: Grid, atlas: Atlas) -> Iterator[Shape]:
    """Yields the solids of an individual, in the order of `ORGANS`."""
    reach = atlas.reach_mm
    shell = atlas.shell.individual(rng, reach).shape(grid)
    thickness = np.float32(reach * rng.uniform(0.03, 0.06))
    yield grid.whole(thickness - np.abs(grid.spread(shell)))
    yield atlas.pair.individual(rng, reach).shape(grid)
    yield atlas.pair.mirrored().individual(rng, reach).shape(grid)
    yield from _solid_with_core(rng, grid, atlas)
    yield from _halves(rng, grid, atlas)
    course = reach * (atlas.duct + rng.normal(0, 0.06, (4, 3)))
    radii = reach * rng.uniform(0.05, 0.11, 4)
    yield tube(grid, course, radii)


def _solid_with_core(rng: np.random.Generator, grid: Grid, atlas: Atlas) -> Iterator[Shape]:
    solid = atlas.solid.individual(rng, atlas.reach_mm)
    yield solid.shape(grid)
    core_radii = solid.radii * rng.uniform(0.4, 0.65)
    yield Ovoid(solid.centre, core_radii, solid.axis).shape(grid)


def _halves(rng: np.random.Generator, grid: Grid, atlas: Atlas) -> Iterator[Shape]:
    """Yields the front and the back of a solid that is cut across its axis."""
    halves = atlas.halves.individual(rng, atlas.reach_mm)
    offset = np.float32(rng.normal(0.1, 0.1) * halves.radii[0])
    ahead = halves.ahead(grid) - offset
    yield halves.shape(grid).within(ahead)
    yield halves.shape(grid).within(-ahead)


def _stray(rng: np.random.Generator, grid: Grid, reach_mm: float, largest: float) -> Shape:
    """Returns an unlabelled ellipsoid or tube at a random position, more often small than large."""
    centre = reach_mm * rng.uniform(-1, 1, 3)
    radii = reach_mm * largest * rng.uniform(0.15, 1.0, 3)
    if rng.uniform() < 0.6:
        axis = rng.normal(size=3)
        return ellipsoid(grid, centre, radii, axis)
    displacements = rng.uniform(-0.5, 0.5, (3, 3))
    course = centre + reach_mm * displacements
    return tube(grid, course, 0.4 * radii)


def _slender(rng: np.random.Generator, ratio: float) -> tuple[Vector, Vector]:
    """Returns radii and axis of an ovoid that is about `ratio` times as long as wide."""
    across = rng.uniform(0.13, 0.2, 2)
    axis = rng.normal(size=3)
    return np.array(
        [across.mean() * ratio * rng.uniform(0.8, 1.2), *across]
    ), axis / np.linalg.norm(axis)
