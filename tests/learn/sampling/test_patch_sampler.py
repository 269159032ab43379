"""Crops: their content and place, which depend on a generator alone."""

from __future__ import annotations

import numpy as np
import pytest

from fseft.learn.sampling.augmentation import load_augmentations
from fseft.learn.sampling.patch_sampler import CropSource, network_input
from fseft.schemas import Intensity, Preprocessing
from fseft.training_config import DEFAULT_AUGMENTATIONS
from fseft.volume.cache import open_case, write_case
from fseft.volume.intensity import normalise

SHAPE = (40, 36, 44)
SIZE = (16, 16, 16)
WINDOW = (Intensity(scheme="window", low=-1000, high=1000),)
BLOB = (slice(4, 10), slice(5, 11), slice(30, 36))


@pytest.fixture
def case(tmp_path):
    """Random intensities, the structures 7 and 3, and a value 5 without a structure."""
    image = np.random.default_rng(0).integers(-900, 900, (1, *SHAPE))
    label = np.zeros(SHAPE, np.uint8)
    label[BLOB] = 7
    label[30:33, 20:23, 8:11] = 3
    label[20:30, 28:, 20:30] = 5
    meta = {"means": [12.0], "stds": [300.0]}
    write_case(tmp_path, "a", image.astype(np.int16), label, meta, classes=[3, 5, 7])
    return open_case(tmp_path, "a")


def constant_case(folder, value, labels=()):
    """A case whose intensities are all the same, with one voxel of each label."""
    label = np.zeros(SHAPE, np.uint8)
    for row, stored in enumerate(labels):
        label[20, 20, 20 + row] = stored
    image = np.full((1, *SHAPE), value, np.int16)
    write_case(folder, str(value), image, label, {}, classes=labels)
    return open_case(folder, str(value))


def source(size=SIZE, **changes):
    options = {"intensity": WINDOW, "modality": "ct", "classes": {3: 1, 7: 2}}
    return CropSource(size, **{**options, **changes})


def rng(seed=0):
    return np.random.default_rng(seed)


def normalised(intensity):
    """The normalised value of a stored intensity."""
    stored = np.full((1, 1, 1, 1), float(intensity))
    return np.float32(normalise(stored, WINDOW, {}).item())


@pytest.mark.parametrize(
    "intensity", [WINDOW, (Intensity(scheme="zscore"),)], ids=["window", "zscore"]
)
def test_a_crop_is_a_normalised_slice_of_the_volume(case, intensity):
    image, _ = case.read_all()
    part = image[:, 3:19, 7:23, 20:36]
    crop, _ = source(intensity=intensity).read(case, (3, 7, 20))
    np.testing.assert_array_equal(crop, normalise(part, intensity, case.meta))
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


def test_crops_are_inside_the_volume(case):
    for seed in range(20):
        crops = source().draw([case], 2, rng(seed))
        assert crops.images.min() > normalised(-901)
        assert crops.images.shape == (2, 1, *SIZE)
        assert crops.labels.shape == (2, 1, *SIZE)


def test_the_margin_of_a_crop_is_read_also_beyond_the_volume(case):
    start = (0, 7, 28)
    crop, structures = source().read(case, start)
    image, label = source(margin=(2, 3, 4)).read(case, start)
    without_margin = image[:, 2:-2, 3:-3, 4:-4]
    np.testing.assert_array_equal(without_margin, crop)
    label_without_margin = label[:, 2:-2, 3:-3, 4:-4]
    np.testing.assert_array_equal(label_without_margin, structures)
    assert (image[:, :2] == normalised(-1024)).all()
    assert not label[:, :2].any()


def test_augmented_crops_show_the_edge_of_the_volume(tmp_path):
    image = np.zeros((1, 60, 60, 60), np.int16)
    label = np.zeros((60, 60, 60), np.uint8)
    label[:2, 20:40, 20:40] = 3
    write_case(tmp_path, "edge", image, label, {}, classes=[3])
    size = (32, 32, 32)
    pipeline = load_augmentations(DEFAULT_AUGMENTATIONS)
    near_structure = source(size, margin=pipeline.margin(size), foreground_fraction=1.0)
    crops = near_structure.draw([open_case(tmp_path, "edge")], 30, rng())
    labels = pipeline.augment(crops, size, seed=0).labels
    shown = labels.any(axis=(1, 2, 3, 4))
    assert shown.mean() > 0.8


@pytest.mark.parametrize(("modality", "air"), [("ct", -1024), ("mr", 0)])
def test_a_volume_smaller_than_the_crop_is_padded_with_air(case, modality, air):
    size = (48, 48, 48)
    crops = source(size, modality=modality).draw([case], 1, rng())
    image, label = crops.images[0], crops.labels[0]
    outside = image[0] == normalised(air)
    padding = np.prod(size) - np.prod(SHAPE)
    assert outside.sum() >= padding
    assert (label[0] == 2).sum() == 6**3
    first = np.argwhere(~outside).min(axis=0)
    last = np.argwhere(~outside).max(axis=0)
    i, j, k = map(slice, first, last + 1)
    stored, _ = case.read_all()
    np.testing.assert_array_equal(image[:, i, j, k], normalise(stored, WINDOW, {}))


def test_the_same_generator_draws_the_same_crops(case):
    first = source().draw([case], 4, rng(1))
    same = source().draw([case], 4, rng(1))
    other = source().draw([case], 4, rng(2))
    np.testing.assert_array_equal(first.images, same.images)
    np.testing.assert_array_equal(first.labels, same.labels)
    assert not np.array_equal(first.images, other.images)


def test_foreground_crops_show_a_structure_and_all_structures_occur(case):
    crops = source(foreground_fraction=1).draw([case], 40, rng())
    shown = [set(np.unique(label)) - {0} for label in crops.labels]
    assert all(shown)
    assert {1} in shown
    assert {2} in shown


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.5, 0.8, 1.0])
def test_the_foreground_fraction_holds_on_average(case, monkeypatch, count, fraction):
    anywhere = []
    start = CropSource.random_start

    def counting(self, case, rng):
        anywhere.append(case)
        return start(self, case, rng)

    monkeypatch.setattr(CropSource, "random_start", counting)
    monkeypatch.setattr(CropSource, "read", lambda *_: (np.zeros(1), np.zeros(1)))
    generator = rng()
    for _ in range(500):
        source(foreground_fraction=fraction).draw([case], count, generator)
    assert 1 - len(anywhere) / (500 * count) == pytest.approx(fraction, abs=0.07)


def test_crops_are_from_the_cases_in_turn(tmp_path):
    cases = [constant_case(tmp_path, value) for value in (10, 20, 30)]
    crops = source(foreground_fraction=0).draw(cases, 4, rng())
    assert crops.images.max(axis=(1, 2, 3, 4)).tolist() == [
        normalised(value) for value in (10, 20, 30, 10)
    ]


def test_a_structure_that_one_case_shows_is_seen_as_often_as_one_of_all_cases(tmp_path):
    cases = [constant_case(tmp_path, value, labels=(3,)) for value in (10, 20, 30)]
    cases.append(constant_case(tmp_path, 40, labels=(3, 7)))
    near_structure, generator = source(foreground_fraction=1), rng()
    crops = [near_structure.draw(cases, 1, generator) for _ in range(200)]
    from_the_last = [crop.images.max() == normalised(40) for crop in crops]
    assert np.mean(from_the_last) == pytest.approx(1 / 2, abs=0.1)


def test_crops_of_a_case_without_the_structures_are_anywhere(case):
    without = source(classes={9: 1}, foreground_fraction=1)
    crops = without.draw([case], 3, rng())
    assert crops.labels.max() == 0
    assert crops.images.shape == (3, 1, *SIZE)


@pytest.mark.parametrize("modality", ["ct", "mr"])
@pytest.mark.parametrize("padding", ["air", "zero"])
def test_a_whole_volume_is_padded_as_a_crop_is(case, modality, padding):
    stored, _ = case.read_all()
    preprocessing = Preprocessing(
        orientation="RAS",
        spacing_mm=(1, 1, 1),
        modality=modality,
        intensity=WINDOW,
        patch_size=SIZE,
        padding=padding,
    )
    padded, inside = network_input(stored, preprocessing, case.meta, (64, 16, 56))
    assert padded.shape[1:] == (64, 36, 56)
    i, j, k = inside
    np.testing.assert_array_equal(padded[:, i, j, k], normalise(stored, WINDOW, case.meta))
    start = tuple(-part.start for part in inside)
    crop, _ = source(padded.shape[1:], modality=modality, padding=padding).read(case, start)
    np.testing.assert_array_equal(padded, crop)


@pytest.mark.parametrize("start", [(-5, 0, 0), (30, 30, 40), (-20, 0, 0), (0, 50, 0), (2, 3, 4)])
def test_zero_padding_is_zero_after_normalisation(case, start):
    crop, _ = source(padding="zero").read(case, start)
    expected = np.zeros_like(crop)
    image = normalise(case.read_all()[0], WINDOW, case.meta)
    voxels = np.indices(SIZE).reshape(3, -1).T
    places = voxels + start
    inside = ((places >= 0) & (places < SHAPE)).all(axis=1)
    expected[0][tuple(voxels[inside].T)] = image[0][tuple(places[inside].T)]
    np.testing.assert_array_equal(crop, expected)
