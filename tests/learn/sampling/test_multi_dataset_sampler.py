"""Crops of several datasets: how often each is drawn, around what, and what counts in them."""

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
def test_shares_are_shares_and_larger_sets_have_larger_ones(counts, temperature):
    found = sampling_probabilities(counts, temperature)
    assert found.sum() == pytest.approx(1)
    assert (np.diff(found[np.argsort(counts)]) >= -1e-12).all()


@given(COUNTS)
def test_temperature_one_is_natural_and_infinity_is_balanced(counts):
    np.testing.assert_allclose(sampling_probabilities(counts, 1), np.asarray(counts) / sum(counts))
    np.testing.assert_allclose(sampling_probabilities(counts, float("inf")), 1 / len(counts))


@pytest.fixture
def sources(tmp_path):
    """One dataset of three cases with structure 1, a rare 2 in one of them; one of a single case with structure 3."""

    def case(name, drawn, annotated):
        label = np.zeros((24, 24, 24), np.uint8)
        for index in drawn:
            label[6 * index : 6 * index + 4, 8:12, 8:12] = index
        meta = {"means": [0.0], "stds": [1.0]}
        write_case(tmp_path, name, np.zeros((1, 24, 24, 24), np.int16), label, meta, classes=drawn)
        return PartiallyLabelledCase(
            f"case {name}", open_case(tmp_path, name), tuple(drawn), annotated
        )

    crops = CropSource(
        SIZE, (Intensity(scheme="window", low=-1000, high=1000),), "ct", {1: 1, 2: 2, 3: 3}
    )
    first = tuple(
        case(name, drawn, (1, 2)) for name, drawn in (("a", [1]), ("b", [1]), ("c", [1, 2]))
    )
    return DatasetSource("first", crops, first), DatasetSource(
        "second", crops, (case("d", [3], (3,)),)
    )


def picks(sources, count=600, odds=(0.5, 0.5), foreground=0.8):
    return [draw_crop_request(sources, np.asarray(odds), foreground, seed) for seed in range(count)]


def order(*chosen, augmented=False):
    config = TrainingConfig(augment=augmented)
    return BatchRequest(chosen, SIZE, 3, load_augmentations(config.augmentations))


def test_datasets_are_drawn_as_the_odds_say(sources):
    names = Counter(one.case.name for one in picks(sources, odds=(0.25, 0.75)))
    assert names["case d"] / 600 == pytest.approx(0.75, abs=0.06)


def test_four_in_five_crops_are_around_a_structure_and_each_structure_comes_as_often(sources):
    around = Counter(one.structure for one in picks(sources, odds=(1.0, 0.0)))
    assert around[None] / 600 == pytest.approx(0.2, abs=0.06)
    assert around[1] / around[2] == pytest.approx(1, abs=0.3)
    assert {one.case.name for one in picks(sources) if one.structure == 2} == {"case c"}


def test_a_crop_around_a_structure_holds_some_of_it(sources):
    for one in picks(sources, 40, foreground=1.0):
        assert (read_batch(order(one)).labels == one.structure).any()


def test_a_batch_says_what_counts_in_each_crop(sources):
    from_both = [
        next(one for one in picks(sources) if one.case.name == name)
        for name in ("case a", "case d")
    ]
    batch = read_batch(order(*from_both))
    assert batch.annotated.tolist() == [[1, 1, 0], [0, 0, 1]]
    assert batch.images.shape == (2, 1, *SIZE)
    assert batch.labels.shape == (2, *SIZE)
    assert [origin.split(",")[0] for origin in batch.origins] == ["case a", "case d"]


@pytest.mark.parametrize("augmented", [False, True])
def test_a_crop_is_the_same_alone_and_in_company(sources, augmented):
    some = picks(sources, 6)
    together = read_batch(order(*some, augmented=augmented))
    for number, one in enumerate(some):
        alone = read_batch(copy.deepcopy(order(one, augmented=augmented)))
        np.testing.assert_array_equal(alone.images[0], together.images[number])
        np.testing.assert_array_equal(alone.labels[0], together.labels[number])
