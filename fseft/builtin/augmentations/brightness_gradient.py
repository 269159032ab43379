"""The augmentation `brightness_gradient`: a smooth change of brightness, as a bias field of MR."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

from fseft.plugin import AugmentationSpec

if TYPE_CHECKING:
    from numpy.random import Generator

    from fseft.learn.sampling.augmentation import Array

STRENGTH = 1.0
"""Largest brightness at the centre of the field, in standard deviations of the channel."""
CENTRE = (-0.5, 1.5)
"""Range of the centre along each axis, as a fraction of the crop: it may be outside."""
WIDTH = (0.3, 1.0)
"""Range of the standard deviation of the field along each axis, as a fraction of the crop."""


@dataclass(frozen=True)
class GaussianField:
    """A Gaussian function over the crop.

    Attributes:
        strength: Value at the centre, in standard deviations of the channel.
        centre: Centre along each axis, as a fraction of the crop.
        width: Standard deviation along each axis, as a fraction of the crop.
    """

    strength: float
    centre: tuple[float, ...]
    width: tuple[float, ...]


class BrightnessGradient:
    """Addition of a Gaussian field, the same for all channels."""

    def draw(self, generator: Generator, shape: tuple[int, ...]) -> GaussianField:
        """Draws a bright or dark field, whose centre may be outside the crop."""
        axes = len(shape) - 1
        return GaussianField(
            generator.uniform(-STRENGTH, STRENGTH),
            tuple(generator.uniform(*CENTRE, axes).tolist()),
            tuple(generator.uniform(*WIDTH, axes).tolist()),
        )

    def apply(self, field: GaussianField, image: Array, label: Array) -> tuple[Array, Array]:
        """Returns the image (C, i, j, k) with the field, and the label."""
        import numpy as np

        profiles = [
            np.exp(-0.5 * ((np.linspace(0, 1, side) - centre) / width) ** 2)
            for side, centre, width in zip(image.shape[1:], field.centre, field.width, strict=True)
        ]
        gradient = field.strength * reduce(np.multiply.outer, profiles)
        spread = image.std(axis=(1, 2, 3), keepdims=True)
        return image + spread * gradient.astype(image.dtype), label


SPEC = AugmentationSpec(
    name="brightness_gradient",
    factory="fseft.builtin.augmentations.brightness_gradient:BrightnessGradient",
    summary="a smooth change of brightness over the crop; not in the default set",
    reference="nnU-Net, nnUNetTrainerDA5",
    probability=0.3,
)
