"""The augmentation `scaling`: isotropic zoom."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.plugin import AugmentationSpec

if TYPE_CHECKING:
    from numpy.random import Generator

    from fseft.learn.sampling.augmentation import Array

SMALLEST, LARGEST = 0.75, 1.3
"""Range of the distance between sampled voxels; above 1, structures become smaller."""


class Scaling:
    """Zoom about the centre of the crop, by the same factor along each axis."""

    def draw(self, generator: Generator, shape: tuple[int, ...]) -> float:  # noqa: ARG002
        """Draws a factor: below and above 1 with equal probability."""
        enlarge = generator.random() < 0.5
        return generator.uniform(SMALLEST, 1.0) if enlarge else generator.uniform(1.0, LARGEST)

    def apply(self, factor: float, coordinates: Array) -> Array:
        """Returns the scaled sampling coordinates, (3, i, j, k)."""
        return coordinates * factor


SPEC = AugmentationSpec(
    name="scaling",
    factory="fseft.builtin.augmentations.scaling:Scaling",
    summary="isotropic zoom by a factor of 0.75 to 1.3",
    probability=0.2,
    spatial=True,
)
