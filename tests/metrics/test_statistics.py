"""The difference of two methods is that of their scores in the same cases, its interval over samples of cases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fseft.metrics.scores import StructureScore, summarise
from fseft.metrics.statistics import FEWEST, mean_score, paired_difference


def scores(seeds=2, cases=8, structures=3, seed=0):
    return np.random.default_rng(seed).uniform(0, 1, (seeds, cases, structures))


def case(values):
    """Scores of a case by structure; None where it is in neither labelling."""

    def one(dice):
        state = "both-empty" if dice is None else "both-present"
        left = {
            "nsd": dice,
            "hd95_mm": dice,
            "volume_ml": 1,
            "reference_ml": 1,
            "volume_difference_ml": 0,
        }
        return StructureScore(dice=dice, state=state, **left)

    return {str(number): one(dice) for number, dice in enumerate(values)}


@settings(deadline=None)
@given(
    st.lists(st.lists(st.none() | st.floats(0, 1), min_size=3, max_size=3), min_size=1, max_size=5)
)
def test_the_mean_score_is_that_of_evaluate(values):
    expected = summarise({str(n): case(row) for n, row in enumerate(values)}, 2.0).mean_dice
    found = mean_score(np.array([values], float))
    assert np.isnan(found) if expected is None else found == pytest.approx(expected)


def test_the_difference_is_that_of_the_mean_scores_whatever_is_missing():
    a, b = scores(), scores(seed=1)
    a[:, 2:, 0] = b[0, :5, 1] = np.nan
    assert paired_difference(a, b).mean == pytest.approx(mean_score(a) - mean_score(b))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_the_interval_holds_the_mean_and_turns_with_the_sides(seed):
    a, b = scores(seed=seed), scores(seed=seed + 1)
    ahead, behind = paired_difference(a, b), paired_difference(b, a)
    assert ahead.low < ahead.mean < ahead.high
    assert (behind.mean, behind.low, behind.high) == pytest.approx(
        (-ahead.mean, -ahead.high, -ahead.low), abs=1e-9
    )


def test_a_difference_that_all_cases_share_is_sure():
    found = paired_difference(scores() + 0.25, scores())
    assert (found.low, found.mean, found.high) == pytest.approx((0.25, 0.25, 0.25))


def test_more_cases_make_it_narrower():
    a, b = scores(cases=6), scores(cases=6, seed=1)
    few, many = (paired_difference(np.tile(a, (1, n, 1)), np.tile(b, (1, n, 1))) for n in (1, 10))
    assert many.high - many.low < few.high - few.low


def test_there_is_no_interval_of_few_cases_and_no_difference_without_a_score():
    few = scores(cases=FEWEST - 1)
    found = paired_difference(few, few + 0.1)
    assert found.mean == pytest.approx(-0.1)
    assert (found.low, found.high) == (None, None)
    assert paired_difference(few, np.full_like(few, np.nan)) is None
