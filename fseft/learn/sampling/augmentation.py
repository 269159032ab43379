"""Augmentation with batchgenerators: rotation, scaling, noise, blur, brightness, contrast, gamma, mirroring."""

from __future__ import annotations

import random
from contextlib import contextmanager
from functools import lru_cache
from math import ceil, pi
from typing import TYPE_CHECKING, Any

import numpy as np

from fseft.learn.sampling.patch_sampler import Crops

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from fseft.schemas import Triple
    from fseft.training_config import Augment


SHIFT, SHIFT_ODDS = 0.1, 0.2


def augment_crops(
    crops: Crops, size: Triple, how: Augment = True, *, mirror_axes: tuple[int, ...], seed: int
) -> Crops:
    """Augment a batch; the same seed gives the same result.

    Args:
        crops: Crops of `size` with a `augmentation_margin`, which fills the corners of rotated and scaled ones.
        size: The size that comes out.
        how: `shift` adds a number up to 0.1, or takes it off, in one crop of five, and does nothing else: the only
            augmentation of the FSEFT code. False does nothing at all.
        mirror_axes: Spatial axes (0, 1, 2) that may be flipped: none where left and right structures exist.
        seed: batchgenerators draws from the global generators of NumPy and Python, which are set to it and put back.
    """
    if how == "shift":
        return Crops(_shifted(crops.images, np.random.default_rng(seed)), crops.labels)
    if not how:
        return crops
    with _seeded(seed):
        out = _pipeline(size, mirror_axes)(data=crops.images.copy(), seg=crops.labels.copy())
    return Crops(
        np.ascontiguousarray(out["data"], np.float32), np.ascontiguousarray(out["seg"], np.int16)
    )


def _shifted(images: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    shifts = rng.uniform(-SHIFT, SHIFT, len(images)) * (rng.random(len(images)) < SHIFT_ODDS)
    return images + shifts.astype(np.float32)[:, None, None, None, None]


def augmentation_margin(size: Triple, how: Augment = True) -> Triple:
    """How many voxels to read around a crop so that it finds some at its corners where it is rotated or reduced."""
    if how is not True:
        return 0, 0, 0
    i, j, k = (ceil(0.075 * side) for side in size)
    return i, j, k


@lru_cache(maxsize=4)
def _pipeline(size: Triple, mirror_axes: tuple[int, ...]) -> Any:
    """Odds and ranges of nnU-Net's trainer; linear instead of cubic interpolation, which costs 2.6 times as much."""
    from batchgenerators.transforms.abstract_transforms import Compose
    from batchgenerators.transforms.color_transforms import (
        BrightnessMultiplicativeTransform,
        ContrastAugmentationTransform,
        GammaTransform,
    )
    from batchgenerators.transforms.noise_transforms import (
        GaussianBlurTransform,
        GaussianNoiseTransform,
    )
    from batchgenerators.transforms.spatial_transforms import MirrorTransform, SpatialTransform

    angle = (-pi / 9, pi / 9)
    steps = [
        SpatialTransform(
            size,
            do_elastic_deform=False,
            do_rotation=True,
            angle_x=angle,
            angle_y=angle,
            angle_z=angle,
            p_rot_per_sample=0.2,
            do_scale=True,
            scale=(0.75, 1.3),
            p_scale_per_sample=0.2,
            border_mode_data="nearest",
            border_mode_seg="nearest",
            order_data=1,
            order_seg=0,
            random_crop=False,
        ),
        GaussianNoiseTransform(noise_variance=(0, 0.02), p_per_sample=0.1),
        GaussianBlurTransform((0.5, 1.0), p_per_sample=0.1),
        BrightnessMultiplicativeTransform((0.75, 1.25), p_per_sample=0.15),
        ContrastAugmentationTransform((0.75, 1.25), p_per_sample=0.15),
        GammaTransform((0.7, 1.5), retain_stats=True, p_per_sample=0.2),
    ]
    if mirror_axes:
        steps.append(MirrorTransform(axes=mirror_axes))
    return Compose(steps)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    before = np.random.get_state(), random.getstate()  # noqa: NPY002 - see `augment`
    np.random.seed(seed % 2**32)  # noqa: NPY002
    random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before[0])  # noqa: NPY002
        random.setstate(before[1])
