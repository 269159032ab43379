"""Crops of several datasets: their probabilities, places and annotated structures."""

from __future__ import annotations

import copy
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fseft.learn.sampling.augmentation import load_augmentations
from fseft.learn.sampling.multi_dataset_sampler import (
    BatchRequest,
    DatasetSource,
    PartiallyLabelledCase,
    draw_crop_request,
    read_batch,
    sampling_probabilities,
)
from fseft.learn.sampling.patch_sampler import CropSource
from fseft.schemas import Intensity
from fseft.training_config import TrainingConfig
from fseft.volume.cache import open_case, write_case

SIZE = (16, 16, 16)
COUNTS = st.lists(st.integers(1, 10_000), min_size=1, max_size=8)


@given(COUNTS, st.floats(0.1, 100))
def test_probabilities_sum_to_one_and_increase_with_the_cases(counts, temperature):
    probabilities = sampling_probabilities(counts, temperature)
    assert probabilities.sum() == pytest.approx(1)
    by_count = probabilities[np.argsort(counts)]
    assert (np.diff(by_count) >= -1e-12).all()


@given(COUNTS)
def test_temperature_one_is_natural_and_infinity_is_balanced(counts):
    natural = np.asarray(counts) / sum(counts)
    balanced = np.full(len(counts), 1 / len(counts))
    np.testing.assert_allclose(sampling_probabilities(counts, 1), natural)
    np.testing.assert_allclose(sampling_probabilities(counts, float("inf")), balanced)


@pytest.fixture
def make_case(tmp_path):
    """Write a case with some structures in its label map."""

    def make(name, drawn, annotated):
        image = np.zeros((1, 24, 24, 24), np.int16)
        label = np.zeros((24, 24, 24), np.uint8)
        for index in drawn:
            first = 6 * index
            label[first : first + 4, 8:12, 8:12] = index
        meta = {"means": [0.0], "stds": [1.0]}
        write_case(tmp_path, name, image, label, meta, classes=drawn)
        cached = open_case(tmp_path, name)
        return PartiallyLabelledCase(f"case {name}", cached, tuple(drawn), annotated)

    return make


@pytest.fixture
def sources(make_case):
    """Three cases with structure 1 (and 2 in one of them); a dataset with structure 3."""
    window = Intensity(scheme="window", low=-1000, high=1000)
    crops = CropSource(SIZE, (window,), "ct", {1: 1, 2: 2, 3: 3})
    first = (
        make_case("a", [1], (1, 2)),
        make_case("b", [1], (1, 2)),
        make_case("c", [1, 2], (1, 2)),
    )
    second = (make_case("d", [3], (3,)),)
    return DatasetSource("first", crops, first), DatasetSource("second", crops, second)


def requests(sources, count=600, probabilities=(0.5, 0.5), foreground_fraction=0.8):
    of_datasets = np.asarray(probabilities)
    return [
        draw_crop_request(sources, of_datasets, foreground_fraction, seed) for seed in range(count)
    ]


def batch_of(*crops, augmented=False):
    config = TrainingConfig(augment=augmented)
    return BatchRequest(crops, SIZE, 3, load_augmentations(config.augmentations))


def test_datasets_are_drawn_with_their_probabilities(sources):
    drawn = requests(sources, probabilities=(0.25, 0.75))
    names = Counter(request.case.name for request in drawn)
    assert names["case d"] / 600 == pytest.approx(0.75, abs=0.06)


def test_structures_are_drawn_with_equal_probability(sources):
    drawn = requests(sources, probabilities=(1.0, 0.0))
    structures = Counter(request.structure for request in drawn)
    anywhere = structures[None] / len(drawn)
    assert anywhere == pytest.approx(0.2, abs=0.06)
    ratio = structures[1] / structures[2]
    assert ratio == pytest.approx(1, abs=0.3)
    for request in drawn:
        if request.structure == 2:
            assert request.case.name == "case c"


def test_a_crop_near_a_structure_shows_it(sources):
    for request in requests(sources, 40, foreground_fraction=1.0):
        labels = read_batch(batch_of(request)).labels
        assert (labels == request.structure).any()


def test_a_batch_lists_the_annotated_structures_of_each_crop(sources):
    by_case = {request.case.name: request for request in requests(sources)}
    batch = read_batch(batch_of(by_case["case a"], by_case["case d"]))
    assert batch.annotated.tolist() == [[1, 1, 0], [0, 0, 1]]
    assert batch.images.shape == (2, 1, *SIZE)
    assert batch.labels.shape == (2, *SIZE)
    assert batch.origins[0].startswith("case a,")
    assert batch.origins[1].startswith("case d,")


@pytest.mark.parametrize("augmented", [False, True])
def test_a_crop_is_the_same_alone_and_in_a_batch(sources, augmented):
    crops = requests(sources, 6)
    together = read_batch(batch_of(*crops, augmented=augmented))
    for number, crop in enumerate(crops):
        request = copy.deepcopy(batch_of(crop, augmented=augmented))
        alone = read_batch(request)
        np.testing.assert_array_equal(alone.images[0], together.images[number])
        np.testing.assert_array_equal(alone.labels[0], together.labels[number])
