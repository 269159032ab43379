"""The augmentation `low_resolution`: downsampling and upsampling of each channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.plugin import AugmentationSpec

if TYPE_CHECKING:
    from numpy.random import Generator

    from fseft.learn.sampling.augmentation import Array

ZOOM = (0.5, 1.0)


class LowResolution:
    """Loss of resolution: nearest-neighbour downsampling, then linear interpolation."""

    def draw(self, generator: Generator, shape: tuple[int, ...]) -> tuple[float, ...]:
        """Draws the zoom factor of each channel."""
        return tuple(generator.uniform(*ZOOM, shape[0]).tolist())

    def apply(self, zooms: tuple[float, ...], image: Array, label: Array) -> tuple[Array, Array]:
        """Returns the image (C, i, j, k) at a lower resolution on the same grid, and the label."""
        import numpy as np

        channels = zip(image, zooms, strict=True)
        return np.stack([_resample(channel, factor) for channel, factor in channels]), label


def _resample(channel: Array, factor: float) -> Array:
    import numpy as np
    from scipy.ndimage import zoom

    shape = np.asarray(channel.shape)
    small = zoom(channel, np.maximum(1, np.round(shape * factor)) / shape, order=0, mode="nearest")
    restored: Array = zoom(small, shape / np.asarray(small.shape), order=1, mode="nearest")
    return restored


SPEC = AugmentationSpec(
    name="low_resolution",
    factory="fseft.builtin.augmentations.low_resolution:LowResolution",
    summary="downsampling to 0.5 to 1 of the resolution; not in the default set",
    probability=0.25,
)
