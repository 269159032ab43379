"""The augmentation `brightness`: multiplication of each channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.plugin import AugmentationSpec

if TYPE_CHECKING:
    from numpy.random import Generator

    from fseft.learn.sampling.augmentation import Array

FACTOR = (0.75, 1.25)


class Brightness:
    """Multiplication by a factor per channel."""

    def draw(self, generator: Generator, shape: tuple[int, ...]) -> tuple[float, ...]:
        """Draws the factor of each channel."""
        return tuple(generator.uniform(*FACTOR, shape[0]).tolist())

    def apply(self, factors: tuple[float, ...], image: Array, label: Array) -> tuple[Array, Array]:
        """Returns the image (C, i, j, k), each channel times its factor, and the label."""
        import numpy as np

        return image * np.asarray(factors, image.dtype)[:, None, None, None], label


SPEC = AugmentationSpec(
    name="brightness",
    factory="fseft.builtin.augmentations.brightness:Brightness",
    summary="multiplication of each channel by 0.75 to 1.25",
    probability=0.15,
)
