"""A difference of scores is taken case by case, and its interval is over samples of cases."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fseft.score.statistics import paired_difference

SCORES = st.lists(st.floats(0, 1), min_size=3, max_size=12)


def by_case(values):
    return {f"case {number}": value for number, value in enumerate(values)}


def test_only_cases_of_both_sides_count():
    found = paired_difference({"a": 0.5, "b": 0.9}, {"a": 0.4, "c": 0.0})
    assert found.mean == pytest.approx(0.1)
    assert found.cases == 1


def test_there_is_no_interval_of_two_cases():
    found = paired_difference(by_case([0.5, 0.7]), by_case([0.4, 0.5]))
    assert (found.low, found.high) == (None, None)


@given(SCORES, st.floats(-0.5, 0.5))
def test_a_difference_that_all_cases_share_is_sure(values, shift):
    shift = round(shift * 64) / 64  # so that adding it loses nothing
    values = [round(value * 64) / 64 for value in values]
    found = paired_difference(by_case([value + shift for value in values]), by_case(values))
    assert found.low == found.mean == found.high == shift


@given(SCORES)
def test_the_interval_holds_the_mean_and_turns_with_the_sides(values):
    ahead = paired_difference(by_case(values), by_case([0.0] * len(values)))
    behind = paired_difference(by_case([0.0] * len(values)), by_case(values))
    assert ahead.mean == -behind.mean
    assert ahead.low <= ahead.mean + 1e-12
    assert ahead.mean <= ahead.high + 1e-12


def test_more_cases_make_it_narrower():
    few, many = ([0.0, 0.1, 0.2] * times for times in (1, 10))
    narrow, wide = (paired_difference(by_case(v), by_case([0.0] * len(v))) for v in (many, few))
    assert narrow.high - narrow.low < wide.high - wide.low
