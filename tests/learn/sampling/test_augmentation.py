"""Augmentation is decided by its seed alone, keeps shapes and labels, and leaves the global state alone."""

from __future__ import annotations

import random

import numpy as np
import pytest

from fseft.learn.sampling.augmentation import augment_crops, augmentation_margin
from fseft.learn.sampling.patch_sampler import Crops

SIZE = (16, 20, 24)


@pytest.fixture
def crops():
    generator = np.random.default_rng(0)
    shape = (4, 1, *np.add(SIZE, np.multiply(2, augmentation_margin(SIZE))))
    labels = np.zeros(shape, np.int16)
    labels[:, :, 4:12, 4:12, 4:12], labels[:, :, 12:, 12:, 12:] = 1, 5
    return Crops(generator.random(shape, np.float32), labels)


def augmented(crops, seed, axes=()):
    return augment_crops(crops, SIZE, mirror_axes=axes, seed=seed)


def same(a, b):
    return np.array_equal(a.images, b.images) and np.array_equal(a.labels, b.labels)


@pytest.mark.parametrize("seed", range(12))
def test_the_same_seed_gives_the_same_result(crops, seed):
    first = augmented(crops, seed, (0, 1, 2))
    random.random()
    np.random.default_rng()
    assert same(first, augmented(crops, seed, (0, 1, 2)))


def test_seeds_differ(crops):
    results = [augmented(crops, seed) for seed in range(8)]
    assert len({result.images.tobytes() for result in results}) > 4


def test_the_global_generators_are_left_as_they_were(crops):
    numpy_before, python_before = np.random.get_state(), random.getstate()  # noqa: NPY002
    augmented(crops, 3)
    assert all(
        np.array_equal(a, b)
        for a, b in zip(numpy_before, np.random.get_state(), strict=True)  # noqa: NPY002
    )
    assert random.getstate() == python_before


@pytest.mark.parametrize("seed", range(12))
def test_shapes_types_and_label_values_stay(crops, seed):
    result = augmented(crops, seed)
    assert result.images.shape == result.labels.shape == (4, 1, *SIZE)
    assert (result.images.dtype, result.labels.dtype) == (np.float32, np.int16)
    assert set(np.unique(result.labels)) <= {0, 1, 5}
    assert np.isfinite(result.images).all()


def test_the_crops_themselves_stay_as_they_were(crops):
    images, labels = crops.images.copy(), crops.labels.copy()
    for seed in range(6):
        augmented(crops, seed, (0, 1, 2))
    np.testing.assert_array_equal(crops.images, images)
    np.testing.assert_array_equal(crops.labels, labels)


def test_only_the_allowed_axes_are_flipped():
    ramp = np.broadcast_to(np.arange(24, dtype=np.float32), (2, 1, *SIZE))
    crops = Crops(np.ascontiguousarray(ramp), np.zeros((2, 1, *SIZE), np.int16))
    last = slice(-6, None)

    def flipped(axes):
        images = [augmented(crops, seed, axes).images for seed in range(20)]
        return {bool(i[..., last].mean() < i[..., :6].mean()) for image in images for i in image}

    assert flipped((0, 1)) == {False}
    assert flipped((2,)) == {False, True}


@pytest.mark.parametrize("seed", range(12))
def test_where_the_image_is_continued_the_label_is_too(crops, seed):
    everywhere = Crops(crops.images, np.ones_like(crops.labels))
    assert (augmented(everywhere, seed).labels == 1).all()


def test_small_shifts_alone_are_the_published_recipe(crops):
    shifted = [
        augment_crops(crops, SIZE, "shift", mirror_axes=(0, 1, 2), seed=seed) for seed in range(50)
    ]
    steps = np.array([(one.images - crops.images).reshape(4, -1) for one in shifted])
    assert np.ptp(steps, axis=2).max() < 1e-6
    sizes = np.abs(steps[:, :, 0])
    assert 0.05 < sizes.max() <= 0.1
    assert 0.1 < (sizes > 1e-6).mean() < 0.3
    assert all(one.labels is crops.labels for one in shifted)
    assert augmentation_margin(SIZE, "shift") == (0, 0, 0)
