"""The torso of one random person: labelled and unlabelled solids, in the order in which they are painted."""

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
SCATTERED = ("ribs", "vertebrae", "colon")  # these may be in many pieces


@dataclass(frozen=True)
class Layer:
    """One solid: what it is made of, the label that it sets, and how much of each voxel it fills."""

    tissue: str
    label: int
    box: Box
    occupancy: Float


def fill(grid: Grid, tissue: str, shape: Shape, label: int) -> Layer:
    """The layer of a solid; voxels that its surface cuts are filled in part."""
    edge = np.float32(np.mean(grid.spacing_mm))
    return Layer(tissue, label, shape.box, np.clip(shape.distance / edge + np.float32(0.5), 0, 1))


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
        """From the right to the left flank."""
        return 2 * (150.0 + self.fat_mm) * self.scale[0]


@dataclass
class Scene:
    """The body while it is built: its grid, the walls of its cavities, and the layers painted so far."""

    grid: Grid
    habitus: Habitus
    cage: Float
    flesh: Float
    diaphragm: Float
    layers: list[Layer] = field(default_factory=list)

    def paint(
        self, tissue: str, shape: Shape, label: str | int = 0, *, gap_mm: float = 0.0
    ) -> None:
        """Put a solid over what is there, with a rim of fat around it where `gap_mm` is given."""
        if shape.distance.size == 0:
            return
        if gap_mm:
            self.paint("fat", shape.grown(gap_mm))
        number = STRUCTURES.index(label) + 1 if isinstance(label, str) else label
        self.layers.append(fill(self.grid, tissue, shape, number))

    def abdominal(self, shape: Shape) -> Shape:
        """A shape kept inside the abdominal wall and below the diaphragm."""
        return shape.within(self.cage - np.float32(8.0), -self.diaphragm - np.float32(3.0))


def random_habitus(rng: np.random.Generator) -> Habitus:
    """Draw a person: small or large, slim or obese, breathing in or out, and what of them is scanned."""
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
    """Lay a voxel grid over the person, off-centre, and bend it so that no border is a perfect ellipsoid."""
    low, high = {"torso": (5, 40), "abdomen": (-55, -15), "chest": (105, 140)}[habitus.region]
    centre = (rng.normal(0, 5), habitus.belly_mm / 4 + rng.normal(0, 5), rng.uniform(low, high))
    axes = [
        (c * f + (np.arange(n) - (n - 1) / 2) * s) / f
        for c, f, n, s in zip(centre, habitus.scale, shape, spacing_mm, strict=True)
    ]
    position = np.meshgrid(*(a.astype(np.float32) for a in axes), indexing="ij", sparse=True)
    bend = rng.uniform(0.6, 1.1)
    x, y, z = (
        p
        + np.float32(5.0 * bend) * smooth_noise(rng, shape, spacing_mm, 110.0)
        + np.float32(1.6 * bend) * smooth_noise(rng, shape, spacing_mm, 38.0)
        for p in position
    )
    turn = np.float32(rng.normal(0, 0.04))  # the patient lies a little rotated
    return Grid(x + turn * y, y - turn * x, z, (spacing_mm[0], spacing_mm[1], spacing_mm[2]))


def build_anatomy(
    rng: np.random.Generator, habitus: Habitus, shape: Sequence[int], spacing_mm: Sequence[float]
) -> list[Layer]:
    """Build one person on a voxel grid.

    Args:
        rng: Decides everything that differs between two persons of the same habitus.
        habitus: The build of the person.
        shape: Voxels (i, j, k); the axes grow to right, anterior and superior.
        spacing_mm: Voxel size in mm along each axis.

    Returns:
        Layers in painting order: what comes later covers what came before.
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
    """The hard labels (i, j, k): the last solid that fills half of a voxel owns it; specks are dropped."""
    from scipy import ndimage

    labels = np.zeros(tuple(shape), np.uint8)
    for layer in layers:
        if layer.label != KEEP:
            labels[layer.box][layer.occupancy > 0.5] = layer.label
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None or structures[number - 1] in SCATTERED:
            continue
        pieces, count = ndimage.label(labels[box] == number)
        if count > 1:
            sizes = np.bincount(pieces.ravel())[1:]
            specks = np.flatnonzero(sizes < 0.2 * sizes.max()) + 1
            labels[box][np.isin(pieces, specks)] = 0
    return labels
