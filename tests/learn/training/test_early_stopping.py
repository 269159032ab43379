"""The plateau rule is that of the FSEFT paper; a training may end too early."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fseft.learn.training.early_stopping import has_plateaued, is_undertrained


def test_a_plateau_takes_thirty_epochs():
    assert not has_plateaued([0.5] * 29)
    assert has_plateaued([0.5] * 30)


@given(st.floats(0.1, 1), st.integers(30, 80))
def test_an_increasing_loss_has_plateaued(first, count):
    assert has_plateaued([first + 0.01 * epoch for epoch in range(count)])


@pytest.mark.parametrize(("slope", "stops"), [(0.00004, True), (0.00006, False)])
def test_the_average_must_fall_by_a_thousandth_in_twenty_epochs(slope, stops):
    assert has_plateaued([1 - slope * epoch for epoch in range(60)]) is stops


def test_noise_of_single_epochs_is_averaged_out():
    losses = []
    for epoch in range(40):
        noise = 0.2 if epoch % 2 else -0.2
        losses.append(1 - 0.01 * epoch + noise)
    assert not has_plateaued(losses)


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
    assert is_undertrained(losses) is expected
