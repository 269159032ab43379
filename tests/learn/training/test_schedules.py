"""The schedule warms up and ends at nothing; the plateau rule is the paper's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fseft.learn.training.schedules import learning_rate_factor, on_plateau, too_short

shares = st.floats(0, 1)
warm_ups = st.floats(0, 0.99)


@given(shares, warm_ups)
def test_the_factor_lies_between_nothing_and_one(progress, warm_up):
    assert 0 <= learning_rate_factor(progress, warm_up) <= 1


@given(warm_ups)
def test_the_factor_ends_at_nothing(warm_up):
    assert learning_rate_factor(1.0, warm_up) == pytest.approx(0, abs=1e-12)


@given(shares, shares, warm_ups)
def test_the_factor_rises_while_it_warms_up_and_falls_after(first, second, warm_up):
    early, late = sorted((first, second))
    a, b = learning_rate_factor(early, warm_up), learning_rate_factor(late, warm_up)
    if late < warm_up:
        assert a <= b
    if early >= warm_up:
        assert a >= b


def test_the_factor_at_known_places():
    assert learning_rate_factor(0, 0) == 1
    assert learning_rate_factor(0.05, 0.1) == pytest.approx(0.5)
    assert learning_rate_factor(0.1, 0.1) == 1
    assert learning_rate_factor(0.55, 0.1) == pytest.approx(0.5)


def test_the_first_step_already_learns():
    assert learning_rate_factor(0.0, 0.05) > 0


def test_thirty_epochs_must_be_there_before_a_plateau_is_seen():
    assert not on_plateau([0.5] * 29)
    assert on_plateau([0.5] * 30)


@given(st.floats(0.1, 1), st.integers(30, 80))
def test_a_loss_that_rises_is_on_a_plateau(first, count):
    assert on_plateau([first + 0.01 * epoch for epoch in range(count)])


@pytest.mark.parametrize(("slope", "stops"), [(0.00004, True), (0.00006, False)])
def test_the_average_must_fall_by_a_thousandth_in_twenty_epochs(slope, stops):
    assert on_plateau([1 - slope * epoch for epoch in range(60)]) is stops


def test_noise_of_single_epochs_is_averaged_out():
    falling = [1 - 0.01 * epoch + (0.2 if epoch % 2 else -0.2) for epoch in range(40)]
    assert not on_plateau(falling)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([], False),
        ([0.9], True),
        ([0.9, 0.8, 0.7, 0.6], True),
        ([1 - n / 100 for n in range(90)], True),
        ([0.5] * 20, False),
        ([0.9] * 30 + [0.3] * 60, False),
    ],
)
def test_a_training_was_too_short_while_its_loss_still_fell(losses, expected):
    assert too_short(losses) is expected
