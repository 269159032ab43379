"""The augmentation `contrast`: stretching of each channel about its mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.plugin import AugmentationSpec

if TYPE_CHECKING:
    from numpy.random import Generator

    from fseft.learn.sampling.augmentation import Array

SMALLEST, LARGEST = 0.75, 1.25


class Contrast:
    """Stretching about the mean of each channel, clipped to the channel's range."""

    def draw(self, generator: Generator, shape: tuple[int, ...]) -> tuple[float, ...]:
        """Draws the factor of each channel: below and above 1 with equal probability."""
        return tuple(_factor(generator) for _ in range(shape[0]))

    def apply(self, factors: tuple[float, ...], image: Array, label: Array) -> tuple[Array, Array]:
        """Returns the stretched image (C, i, j, k), and the label."""
        import numpy as np

        channels = zip(image, factors, strict=True)
        return np.stack([_stretch(channel, factor) for channel, factor in channels]), label


def _factor(generator: Generator) -> float:
    reduce = generator.random() < 0.5
    return generator.uniform(SMALLEST, 1.0) if reduce else generator.uniform(1.0, LARGEST)


def _stretch(channel: Array, factor: float) -> Array:
    mean = channel.mean()
    stretched: Array = (channel - mean) * factor + mean
    return stretched.clip(channel.min(), channel.max())


SPEC = AugmentationSpec(
    name="contrast",
    factory="fseft.builtin.augmentations.contrast:Contrast",
    summary="stretching of each channel about its mean by 0.75 to 1.25",
    probability=0.15,
)
