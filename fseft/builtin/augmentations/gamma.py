"""The augmentation `gamma`: a power of the intensities."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.plugin import AugmentationSpec

if TYPE_CHECKING:
    from numpy.random import Generator

    from fseft.learn.sampling.augmentation import Array

SMALLEST, LARGEST = 0.7, 1.5
_EPSILON = 1e-7


class Gamma:
    """A power of the intensities scaled to [0, 1]; mean and standard deviation are restored."""

    def draw(self, generator: Generator, shape: tuple[int, ...]) -> float:  # noqa: ARG002
        """Draws the exponent: below and above 1 with equal probability."""
        below = generator.random() < 0.5
        return generator.uniform(SMALLEST, 1.0) if below else generator.uniform(1.0, LARGEST)

    def apply(self, exponent: float, image: Array, label: Array) -> tuple[Array, Array]:
        """Returns the transformed image (C, i, j, k), all channels by one rule, and the label."""
        minimum = image.min()
        scale = image.max() - minimum
        scaled = (image - minimum) / (scale + _EPSILON)
        powered = scale * scaled**exponent
        standardised = (powered - powered.mean()) / (powered.std() + _EPSILON)
        return standardised * image.std() + image.mean(), label


SPEC = AugmentationSpec(
    name="gamma",
    factory="fseft.builtin.augmentations.gamma:Gamma",
    summary="a power of 0.7 to 1.5 of the intensities, with the mean and spread restored",
    probability=0.2,
)
