"""The torso of a random person: labelled and unlabelled solids, in painting order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from fseft.builtin.phantom.shapes import KEEP, Grid, Shape, smooth_noise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from fseft.builtin.phantom.shapes import Box, Float

STRUCTURES: tuple[str, ...] = (
    "lung_right",
    "lung_left",
    "heart",
    "vertebrae",
    "ribs",
    "liver",
    "spleen",
    "kidney_right",
    "kidney_left",
    "stomach",
    "aorta",
    "pancreas",
    "gallbladder",
    "colon",
)
SCATTERED = ("ribs", "vertebrae", "colon")  # structures with many components
# Range of the height of the centre of the volume, in mm of the reference body.
_CENTRE_HEIGHTS = {"torso": (5, 40), "abdomen": (-55, -15), "chest": (105, 140)}


@dataclass(frozen=True)
class Layer:
    """One solid in painting order.

    Attributes:
        tissue: Tissue, which decides the intensity.
        label: Label of its voxels, 0 for background, or `KEEP`.
        box: Box of the grid.
        occupancy: Fraction of each voxel of the box that it fills.
    """

    tissue: str
    label: int
    box: Box
    occupancy: Float


def fill(grid: Grid, tissue: str, shape: Shape, label: int) -> Layer:
    """Returns the layer of a solid; voxels at its surface are partially filled.

    Args:
        grid: Provides the voxel size.
        tissue: Tissue of the solid.
        shape: The solid.
        label: Label of its voxels, 0 for background, or `KEEP`.
    """
    edge = np.float32(np.mean(grid.spacing_mm))
    voxels = shape.distance / edge
    occupancy = np.clip(voxels + np.float32(0.5), 0, 1)
    return Layer(tissue, label, shape.box, occupancy)


@dataclass(frozen=True)
class Habitus:
    """The build of one person, in mm and factors of a reference adult."""

    scale: tuple[float, float, float]
    fat_mm: float
    belly_mm: float
    gap_mm: float
    breath_mm: float
    scoliosis_mm: float
    kyphosis_mm: float
    arteries: float
    region: str

    @property
    def width_mm(self) -> float:
        """Width of the body from flank to flank, in mm."""
        return 2 * (150.0 + self.fat_mm) * self.scale[0]


@dataclass
class Scene:
    """A body under construction: grid, walls of the cavities, and the layers so far."""

    grid: Grid
    habitus: Habitus
    cage: Float
    flesh: Float
    diaphragm: Float
    layers: list[Layer] = field(default_factory=list)

    def paint(
        self, tissue: str, shape: Shape, label: str | int = 0, *, gap_mm: float = 0.0
    ) -> None:
        """Paints a solid over earlier ones, with a margin of fat of `gap_mm`.

        Args:
            tissue: Tissue of the solid.
            shape: The solid; nothing is painted if it is empty.
            label: A structure of `STRUCTURES`, 0 for background, or `KEEP`.
            gap_mm: Width of the margin of fat.
        """
        if shape.distance.size == 0:
            return
        if gap_mm:
            self.paint("fat", shape.grown(gap_mm))
        number = STRUCTURES.index(label) + 1 if isinstance(label, str) else label
        self.layers.append(fill(self.grid, tissue, shape, number))

    def abdominal(self, shape: Shape) -> Shape:
        """Returns a shape restricted to the abdominal cavity."""
        wall = self.cage - np.float32(8.0)
        below = -self.diaphragm - np.float32(3.0)
        return shape.within(wall, below)


def random_habitus(rng: np.random.Generator) -> Habitus:
    """Draws a person: size, obesity, phase of breathing and the scanned region."""
    size = float(np.clip(rng.normal(1.0, 0.06), 0.86, 1.14))
    obesity = float(rng.beta(1.6, 3.0))
    return Habitus(
        scale=(
            size * float(rng.normal(1.0, 0.025)),
            size * float(rng.normal(1.0, 0.04)),
            size * float(rng.normal(1.0, 0.03)),
        ),
        fat_mm=5.0 + 42.0 * obesity,
        belly_mm=55.0 * obesity * float(rng.uniform(0.4, 1.0)),
        gap_mm=1.0 + 6.0 * obesity * float(rng.uniform(0.4, 1.0)),
        breath_mm=float(rng.normal(0.0, 9.0)),
        scoliosis_mm=float(rng.normal(0.0, 5.0)),
        kyphosis_mm=float(rng.normal(10.0, 4.0)),
        arteries=float(rng.beta(1.5, 4.0)),
        region=str(rng.choice(["torso", "abdomen", "chest"], p=[0.6, 0.28, 0.12])),
    )


def random_grid(
    rng: np.random.Generator, habitus: Habitus, shape: Sequence[int], spacing_mm: Sequence[float]
) -> Grid:
    """Returns an off-centre grid of the person, deformed so that no surface is an ellipsoid.

    Args:
        rng: Source of randomness.
        habitus: Build of the person.
        shape: Voxels (i, j, k).
        spacing_mm: Voxel size.
    """
    centre = _random_centre(rng, habitus)
    axes = []
    for axis in range(3):
        voxels = np.arange(shape[axis]) - (shape[axis] - 1) / 2
        scale = habitus.scale[axis]
        positions = (centre[axis] * scale + voxels * spacing_mm[axis]) / scale
        axes.append(positions.astype(np.float32))
    undeformed = np.meshgrid(*axes, indexing="ij", sparse=True)
    x, y, z = _deform(rng, undeformed, shape, spacing_mm)
    turn = np.float32(rng.normal(0, 0.04))  # patients are slightly rotated
    i, j, k = spacing_mm
    return Grid(x + turn * y, y - turn * x, z, (i, j, k))


def _random_centre(rng: np.random.Generator, habitus: Habitus) -> tuple[float, float, float]:
    """Draws the centre of the scanned region, in mm of the reference body."""
    low, high = _CENTRE_HEIGHTS[habitus.region]
    x = rng.normal(0, 5)
    y = habitus.belly_mm / 4 + rng.normal(0, 5)
    z = rng.uniform(low, high)
    return x, y, z


def _deform(
    rng: np.random.Generator,
    positions: Sequence[Float],
    shape: Sequence[int],
    spacing_mm: Sequence[float],
) -> list[Float]:
    """Returns the positions along each axis with smooth random displacements."""
    bend = rng.uniform(0.6, 1.1)
    coarse, fine = np.float32(5.0 * bend), np.float32(1.6 * bend)
    deformed = []
    for position in positions:
        position = position + coarse * smooth_noise(rng, shape, spacing_mm, 110.0)
        position = position + fine * smooth_noise(rng, shape, spacing_mm, 38.0)
        deformed.append(position)
    return deformed


def build_anatomy(
    rng: np.random.Generator, habitus: Habitus, shape: Sequence[int], spacing_mm: Sequence[float]
) -> list[Layer]:
    """Builds one person on a voxel grid.

    Args:
        rng: Source of the variation between persons of the same habitus.
        habitus: Build of the person.
        shape: Voxels (i, j, k); the axes are RAS.
        spacing_mm: Voxel size in mm along each axis.

    Returns:
        Layers in painting order; later ones cover earlier ones.
    """
    from fseft.builtin.phantom import abdomen, thorax

    grid = random_grid(rng, habitus, shape, spacing_mm)
    cage = thorax.cage(grid, habitus)
    flesh = thorax.flesh(rng, grid, cage)
    scene = Scene(grid, habitus, cage, flesh, thorax.diaphragm(rng, grid, habitus))
    thorax.paint_wall(rng, scene)
    abdomen.paint_bowel(rng, scene)
    thorax.paint_lungs(rng, scene)
    thorax.paint_mediastinum(rng, scene)
    thorax.paint_heart(rng, scene)
    abdomen.paint_stomach(rng, scene)
    abdomen.paint_pancreas(rng, scene)
    abdomen.paint_liver(rng, scene)
    abdomen.paint_spleen(rng, scene)
    abdomen.paint_kidneys(rng, scene)
    thorax.paint_aorta(rng, scene)
    thorax.paint_spine(rng, scene)
    thorax.paint_ribs(rng, scene)
    return scene.layers


def paint_labels(
    layers: Sequence[Layer], shape: Sequence[int], structures: Sequence[str] = STRUCTURES
) -> NDArray[np.uint8]:
    """Returns the label map (i, j, k) without small components.

    A voxel belongs to the last solid that fills half of it.

    Args:
        layers: Layers in painting order.
        shape: Voxels (i, j, k).
        structures: Names of the labels from 1.
    """
    from scipy import ndimage

    labels = np.zeros(tuple(shape), np.uint8)
    for layer in layers:
        if layer.label != KEEP:
            labels[layer.box][layer.occupancy > 0.5] = layer.label
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None or structures[number - 1] in SCATTERED:
            continue
        components, count = ndimage.label(labels[box] == number)
        if count > 1:
            sizes = np.bincount(components.ravel())[1:]
            small = np.flatnonzero(sizes < 0.2 * sizes.max()) + 1
            labels[box][np.isin(components, small)] = 0
    return labels
