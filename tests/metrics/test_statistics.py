"""Methods are compared by their mean scores on the same cases, with an interval over cases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fseft.metrics.scores import StructureScore, aggregate_scores
from fseft.metrics.selection import select_metrics
from fseft.metrics.statistics import MIN_CASES, mean_score, paired_difference


def random_scores(seeds=2, cases=8, structures=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(0, 1, (seeds, cases, structures))


def score(dice):
    state = "both-empty" if dice is None else "both-present"
    return StructureScore(metrics={"dice": dice}, volume_ml=1, reference_ml=1, state=state)


rows = st.lists(st.none() | st.floats(0, 1), min_size=3, max_size=3)


@given(st.lists(rows, min_size=1, max_size=5))
def test_the_mean_score_is_that_of_evaluate(values):
    cases = {}
    for case, row in enumerate(values):
        cases[str(case)] = {str(name): score(dice) for name, dice in enumerate(row)}
    scores = aggregate_scores(cases, 2.0, metrics=select_metrics(["dice"]))
    expected = scores.mean["dice"]
    mean = mean_score(np.array([values], float))
    if expected is None:
        assert np.isnan(mean)
    else:
        assert mean == pytest.approx(expected)


def test_the_difference_is_that_of_the_mean_scores_with_missing_values():
    a, b = random_scores(), random_scores(seed=1)
    a[:, 2:, 0] = np.nan
    b[0, :5, 1] = np.nan
    difference = paired_difference(a, b)
    assert difference.mean == pytest.approx(mean_score(a) - mean_score(b))


@settings(max_examples=10)
@given(st.integers(0, 1000))
def test_the_interval_contains_the_mean_and_is_antisymmetric(seed):
    a, b = random_scores(seed=seed), random_scores(seed=seed + 1)
    forward, backward = paired_difference(a, b), paired_difference(b, a)
    assert forward.low < forward.mean < forward.high
    assert backward.mean == pytest.approx(-forward.mean, abs=1e-9)
    assert backward.low == pytest.approx(-forward.high, abs=1e-9)
    assert backward.high == pytest.approx(-forward.low, abs=1e-9)


def test_a_difference_that_all_cases_share_has_an_interval_of_no_width():
    difference = paired_difference(random_scores() + 0.25, random_scores())
    bounds = (difference.low, difference.mean, difference.high)
    assert bounds == pytest.approx((0.25, 0.25, 0.25))


def test_more_cases_narrow_the_interval():
    a, b = random_scores(cases=6), random_scores(cases=6, seed=1)
    few = paired_difference(a, b)
    many = paired_difference(np.tile(a, (1, 10, 1)), np.tile(b, (1, 10, 1)))
    assert many.high - many.low < few.high - few.low


def test_few_cases_have_no_interval():
    scores = random_scores(cases=MIN_CASES - 1)
    difference = paired_difference(scores, scores + 0.1)
    assert difference.mean == pytest.approx(-0.1)
    assert (difference.low, difference.high) == (None, None)


def test_methods_without_a_score_are_not_compared():
    scores = random_scores()
    assert paired_difference(scores, np.full_like(scores, np.nan)) is None
