"""Batches are drawn a step ahead, in any order; each purpose has its own seed."""

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
def test_purposes_and_numbers_have_different_seeds(seed, number):
    assert derived_seed(seed, "crops", number) == derived_seed(seed, "crops", number)
    others = [
        derived_seed(seed, "order", number),
        derived_seed(seed, "crops", number + 1),
        derived_seed(seed, "crops"),
    ]
    assert derived_seed(seed, "crops", number) not in others


def test_a_seed_never_changes_from_one_version_to_the_next():
    assert derived_seed(0, "support") == 4223163580


def squared(number):
    return number * number


@given(st.lists(st.integers(0, 20), max_size=10))
def test_the_batch_of_a_step_is_the_batch_of_that_step_in_any_order(steps):
    with BatchPrefetcher(squared) as batches:
        for step in steps:
            assert batches.batch(step) == step * step


def test_the_next_batch_is_drawn_while_this_one_is_used():
    drawn = threading.Event()

    def draw(step):
        if step == 1:
            drawn.set()
        return step

    with BatchPrefetcher(draw) as batches:
        assert batches.batch(0) == 0
        assert drawn.wait(60)


def test_a_batch_for_another_context_is_drawn_again():
    with BatchPrefetcher(lambda request: request, lambda *key: key) as batches:
        keys = [(0, "a"), (1, "a"), (2, "b"), (3, "b"), (4,)]
        for key in keys:
            batch = batches.batch(*key)
            assert batch == key


def test_an_error_while_drawing_is_raised_for_its_batch():
    def draw(step):
        if step == 2:
            raise ValueError("damaged")
        return step

    with BatchPrefetcher(draw) as batches:
        assert [batches.batch(0), batches.batch(1)] == [0, 1]
        with pytest.raises(ValueError, match="damaged"):
            batches.batch(2)


def test_processes_draw_the_same_in_the_same_order():
    with BatchPrefetcher(squared, lambda step: step + 1, processes=2) as batches:
        for step in (0, 1, 2, 7):
            batch = batches.batch(step)
            assert batch == (step + 1) ** 2


def killed(_):
    os._exit(9)


def test_a_killed_process_is_an_error_with_a_remedy():
    with (
        BatchPrefetcher(killed, processes=2) as batches,
        pytest.raises(FseftError, match=r"was killed.*fewer `workers`"),
    ):
        batches.batch(0)
