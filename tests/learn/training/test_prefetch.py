"""Batches come one step ahead, in order or not, and seeds are one per purpose."""

from __future__ import annotations

import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fseft.errors import FseftError
from fseft.learn.training.prefetch import BatchPrefetcher, derived_seed

seeds = st.integers(0, 2**32)


@given(seeds, st.integers(0, 1000))
def test_purposes_and_numbers_have_seeds_of_their_own(seed, number):
    assert derived_seed(seed, "crops", number) == derived_seed(seed, "crops", number)
    others = [
        derived_seed(seed, "order", number),
        derived_seed(seed, "crops", number + 1),
        derived_seed(seed, "crops"),
    ]
    assert derived_seed(seed, "crops", number) not in others


def test_a_seed_never_changes_from_one_version_to_the_next():
    assert derived_seed(0, "support") == 4223163580


@given(st.lists(st.integers(0, 20), max_size=10))
def test_the_batch_of_a_step_is_the_batch_of_that_step_in_any_order(steps):
    with BatchPrefetcher(lambda step: step * step) as ahead:
        assert [ahead.batch(step) for step in steps] == [step * step for step in steps]


def test_the_next_batch_is_drawn_while_this_one_is_used():
    drawn = threading.Event()

    def draw(step):
        if step == 1:
            drawn.set()
        return step

    with BatchPrefetcher(draw) as ahead:
        assert ahead.batch(0) == 0
        assert drawn.wait(5)


def test_a_batch_that_was_drawn_for_other_circumstances_is_drawn_again():
    with BatchPrefetcher(lambda asked: asked, lambda *asked: asked) as ahead:
        asked = [(0, "a"), (1, "a"), (2, "b"), (3, "b"), (4,)]
        assert [ahead.batch(*key) for key in asked] == asked


def test_an_error_while_drawing_comes_up_where_the_batch_is_asked_for():
    def draw(step):
        if step == 2:
            raise ValueError("damaged")
        return step

    with BatchPrefetcher(draw) as ahead:
        assert [ahead.batch(0), ahead.batch(1)] == [0, 1]
        with pytest.raises(ValueError, match="damaged"):
            ahead.batch(2)


def squared(number):
    return number * number


def test_processes_draw_the_same_in_the_same_order():
    with BatchPrefetcher(squared, lambda step: step + 1, processes=2) as ahead:
        assert [ahead.batch(step) for step in (0, 1, 2, 7)] == [1, 4, 9, 64]


def killed(_):
    os._exit(9)


def test_a_process_that_was_killed_is_told_with_its_remedy():
    with (
        BatchPrefetcher(killed, processes=2) as ahead,
        pytest.raises(FseftError, match=r"was killed.*fewer `workers`"),
    ):
        ahead.batch(0)
