"""CutMix moves boxes between crops with image and label, and respects what is annotated."""

from __future__ import annotations

import numpy as np
import pytest

from fseft.learn.sampling.cutmix import cutmix
from fseft.learn.sampling.patch_sampler import Crops

SHAPE = (10, 11, 12)


def crops_of(count=2, annotated=None):
    """Crops whose voxels all hold the number of the crop, as image and as label."""
    numbers = np.arange(count).reshape(count, 1, 1, 1, 1)
    images = np.broadcast_to(numbers, (count, 2, *SHAPE)).astype(np.float32)
    labels = np.broadcast_to(numbers, (count, 1, *SHAPE)).astype(np.int16)
    return Crops(images, labels, annotated)


@pytest.mark.parametrize("seed", range(5))
def test_each_crop_gets_a_box_of_the_next_with_its_label(seed):
    mixed = cutmix(crops_of(3), 1.0, np.random.default_rng(seed))
    for crop, (image, label) in enumerate(zip(mixed.images, mixed.labels, strict=True)):
        assert set(np.unique(image)) == {crop, (crop + 1) % 3}
        assert (image == label).all()
        sides = [len(np.unique(axis)) for axis in np.nonzero(label[0] != crop)]
        assert np.prod(sides) == (label != crop).sum()
        assert all(0.2 <= side / length <= 0.65 for side, length in zip(sides, SHAPE, strict=True))


def test_the_probability_is_the_fraction_of_mixed_crops():
    mixed = cutmix(crops_of(400), 0.25, np.random.default_rng(0))
    changed = [len(np.unique(label)) == 2 for label in mixed.labels]
    assert np.mean(changed) == pytest.approx(0.25, abs=0.07)


def test_crops_that_annotate_other_structures_are_not_mixed():
    annotated = np.array([[1, 1], [1, 1], [1, 0]], np.float32)
    mixed = cutmix(crops_of(3, annotated), 1.0, np.random.default_rng(0))
    changed = [len(np.unique(label)) == 2 for label in mixed.labels]
    assert changed == [True, False, False]
    assert mixed.annotated is annotated


def test_a_single_crop_and_the_given_arrays_stay_as_they_are():
    crops = crops_of(2)
    cutmix(crops, 1.0, np.random.default_rng(0))
    np.testing.assert_array_equal(crops.labels, crops_of(2).labels)
    alone = crops_of(1)
    np.testing.assert_array_equal(cutmix(alone, 1.0, np.random.default_rng(0)).images, alone.images)
