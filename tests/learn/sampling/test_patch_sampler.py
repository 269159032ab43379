"""Crops: what lies in them, where they lie, and that a generator decides all of it."""

from __future__ import annotations

import numpy as np
import pytest

from fseft.learn.sampling.augmentation import load_augmentations
from fseft.learn.sampling.patch_sampler import CropSource, pad_to
from fseft.schemas import Intensity
from fseft.training_config import DEFAULT_AUGMENTATIONS
from fseft.volume.cache import open_case, write_case
from fseft.volume.intensity import normalise

SHAPE = (40, 36, 44)
SIZE = (16, 16, 16)
WINDOW = (Intensity(scheme="window", low=-1000, high=1000),)
BLOB = (slice(4, 10), slice(5, 11), slice(30, 36))


@pytest.fixture
def case(tmp_path):
    """Random intensities; a small structure 7, a smaller 3, and a 5 that nobody asks for."""
    image = np.random.default_rng(0).integers(-900, 900, (1, *SHAPE)).astype(np.int16)
    label = np.zeros(SHAPE, np.uint8)
    label[BLOB], label[30:33, 20:23, 8:11], label[20:30, 28:, 20:30] = 7, 3, 5
    meta = {"means": [12.0], "stds": [300.0]}
    write_case(tmp_path, "a", image, label, meta, classes=[3, 5, 7])
    return open_case(tmp_path, "a")


def source(size=SIZE, **changed):
    return CropSource(
        size, **{"intensity": WINDOW, "modality": "ct", "classes": {3: 1, 7: 2}, **changed}
    )


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    "intensity", [WINDOW, (Intensity(scheme="zscore"),)], ids=["window", "zscore"]
)
def test_a_crop_is_a_slice_of_the_volume_normalised(case, intensity):
    image, _ = case.read_all()
    start = (3, 7, 20)
    box = tuple(slice(s, s + n) for s, n in zip(start, SIZE, strict=True))
    crop, _ = source(intensity=intensity).read(case, start)
    np.testing.assert_array_equal(crop, normalise(image[(slice(None), *box)], intensity, case.meta))
    assert crop.dtype == np.float32


def test_label_values_become_indices_and_others_background(case):
    _, structures = source().read(case, (0, 0, 0))
    _, whole = source(size=SHAPE).read(case, (0, 0, 0))
    _, label = case.read_all()
    assert structures.shape == (1, *SIZE)
    assert structures.dtype == np.int16
    np.testing.assert_array_equal(whole[0] == 2, label == 7)
    np.testing.assert_array_equal(whole[0] == 1, label == 3)
    assert set(np.unique(whole)) == {0, 1, 2}


def test_crops_lie_inside_the_volume(case):
    for seed in range(20):
        crops = source().draw(case, 2, rng(seed))
        assert crops.images.min() > normalise(np.full((1, 1, 1, 1), -901.0), WINDOW, {}).item()
        assert crops.images.shape == (2, 1, *SIZE)
        assert crops.labels.shape == (2, 1, *SIZE)


def test_around_a_crop_its_rim_is_read_also_beyond_the_volume(case):
    crop, structures = source().read(case, (0, 7, 28))
    image, whole = source(margin=(2, 3, 4)).read(case, (0, 7, 28))
    inner = (slice(None), slice(2, -2), slice(3, -3), slice(4, -4))
    np.testing.assert_array_equal(image[inner], crop)
    np.testing.assert_array_equal(whole[inner], structures)
    air = normalise(np.full((1, 1, 1, 1), -1024.0), WINDOW, {}).item()
    assert (image[:, :2] == np.float32(air)).all()
    assert not whole[:, :2].any()


def test_augmented_crops_show_what_lies_at_the_edge_of_the_volume(tmp_path):
    label = np.zeros((60, 60, 60), np.uint8)
    label[:2, 20:40, 20:40] = 3
    write_case(tmp_path, "edge", np.zeros((1, 60, 60, 60), np.int16), label, {}, classes=[3])
    size, pipeline = (32, 32, 32), load_augmentations(DEFAULT_AUGMENTATIONS)
    near_structure = source(size, margin=pipeline.margin(size), foreground_fraction=1.0)
    crops = near_structure.draw(open_case(tmp_path, "edge"), 30, rng())
    shown = pipeline.augment(crops, size, seed=0).labels.any(axis=(1, 2, 3, 4))
    assert shown.mean() > 0.8


@pytest.mark.parametrize(("modality", "air"), [("ct", -1024), ("mr", 0)])
def test_a_volume_smaller_than_the_crop_is_padded_with_air(case, modality, air):
    size = (48, 48, 48)
    crops = source(size, modality=modality).draw(case, 1, rng())
    (image,), (label,) = crops.images, crops.labels
    padding = normalise(np.full((1, 1, 1, 1), float(air)), WINDOW, {}).item()
    outside = image[0] == np.float32(padding)
    assert outside.sum() >= np.prod(size) - np.prod(SHAPE)
    assert (label[0] == 2).sum() == 6**3
    corner = [np.flatnonzero((~outside).any(tuple({0, 1, 2} - {axis})))[0] for axis in range(3)]
    inside = tuple(slice(c, c + n) for c, n in zip(corner, SHAPE, strict=True))
    np.testing.assert_array_equal(
        image[(slice(None), *inside)], normalise(case.read_all()[0], WINDOW, {})
    )


def test_the_same_generator_gives_the_same_crops(case):
    first, same, other = (source().draw(case, 4, rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.images, same.images)
    np.testing.assert_array_equal(first.labels, same.labels)
    assert not np.array_equal(first.images, other.images)


def test_foreground_crops_show_a_structure_and_each_has_its_turn(case):
    crops = source(foreground_fraction=1).draw(case, 40, rng())
    shown = [set(np.unique(label)) - {0} for label in crops.labels]
    assert all(shown)
    assert {1} in shown
    assert {2} in shown


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.8, 1.0])
def test_the_share_of_foreground_crops_holds_on_average(case, monkeypatch, count, share):
    asked = []
    start = CropSource._start

    def counting(self, case, rng, *, foreground):
        asked.append(foreground)
        return start(self, case, rng, foreground=foreground)

    monkeypatch.setattr(CropSource, "_start", counting)
    monkeypatch.setattr(CropSource, "read", lambda *_: (np.zeros(1), np.zeros(1)))
    generator = rng()
    for _ in range(500):
        source(foreground_fraction=share).draw(case, count, generator)
    assert np.mean(asked) == pytest.approx(share, abs=0.07)


def test_a_case_without_any_of_the_structures_gives_crops_from_anywhere(case):
    crops = source(classes={9: 1}, foreground_fraction=1).draw(case, 3, rng())
    assert crops.labels.max() == 0
    assert crops.images.shape == (3, 1, *SIZE)


@pytest.mark.parametrize("modality", ["ct", "mr"])
def test_a_whole_volume_is_filled_up_as_a_crop_is(case, modality):
    size = (64, 16, 56)
    padded, inside = pad_to(case.read_all()[0], size, modality)
    assert padded.shape[1:] == (64, 36, 56)
    np.testing.assert_array_equal(padded[(slice(None), *inside)], case.read_all()[0])
    start = tuple(-part.start for part in inside)
    crop, _ = source(padded.shape[1:], modality=modality).read(case, start)
    np.testing.assert_array_equal(normalise(padded, WINDOW, case.meta), crop)
