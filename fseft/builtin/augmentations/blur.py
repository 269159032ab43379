"""The augmentation `blur`: Gaussian smoothing of each channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.plugin import AugmentationSpec

if TYPE_CHECKING:
    from numpy.random import Generator

    from fseft.learn.sampling.augmentation import Array

SIGMA = (0.5, 1.0)
"""Range of the kernel's standard deviation, in voxels."""


class Blur:
    """Gaussian smoothing, with another kernel for each channel."""

    def draw(self, generator: Generator, shape: tuple[int, ...]) -> tuple[float, ...]:
        """Draws the standard deviation of the kernel of each channel, in voxels."""
        return tuple(generator.uniform(*SIGMA, shape[0]).tolist())

    def apply(self, sigmas: tuple[float, ...], image: Array, label: Array) -> tuple[Array, Array]:
        """Returns the smoothed image (C, i, j, k), and the label."""
        import numpy as np
        from scipy.ndimage import gaussian_filter

        channels = zip(image, sigmas, strict=True)
        return np.stack([gaussian_filter(channel, sigma) for channel, sigma in channels]), label


SPEC = AugmentationSpec(
    name="blur",
    factory="fseft.builtin.augmentations.blur:Blur",
    summary="Gaussian smoothing with a kernel of 0.5 to 1 voxels",
    probability=0.1,
)
