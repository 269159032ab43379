"""The moving average follows the weights and can replace them, within a context or for good."""

from __future__ import annotations

import pytest
import torch

from fseft.learn.training.ema import ExponentialMovingAverage


def weights(*values):
    return [torch.nn.Parameter(torch.tensor([value])) for value in values]


def test_it_is_the_exponential_moving_average():
    (weight,) = parameters = weights(0.0)
    average, expected = ExponentialMovingAverage(parameters, 0.5), 0.0
    for step in range(100, 120):
        with torch.no_grad():
            weight.fill_(float(step))
        average.update(step)
        expected = 0.5 * expected + 0.5 * step
    assert average.tensors[0].item() == pytest.approx(expected)


def test_the_first_weights_soon_have_no_effect():
    (weight,) = parameters = weights(1000.0)
    average = ExponentialMovingAverage(parameters, 0.9999)
    with torch.no_grad():
        weight.fill_(1.0)
    for step in range(1, 200):
        average.update(step)
    assert average.tensors[0].item() == pytest.approx(1.0, abs=0.01)


def test_it_replaces_the_weights_within_a_context_or_for_good():
    parameters = weights(1.0, 2.0)
    average = ExponentialMovingAverage(parameters, 0.5)
    average.restore([torch.tensor([5.0]), torch.tensor([6.0])])
    with average.average_parameters():
        assert [p.item() for p in parameters] == [5.0, 6.0]
    assert [p.item() for p in parameters] == [1.0, 2.0]
    average.copy_to()
    assert [p.item() for p in parameters] == [5.0, 6.0]
