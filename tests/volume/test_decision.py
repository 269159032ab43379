"""The class of each voxel: that of the highest logit, or overlapping structures written in order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from scipy.special import softmax as softmax_of

from fseft.volume.decision import confidence, decide, probabilities

CLASSES = 5
orders = st.one_of(st.just(()), st.permutations(range(1, CLASSES)))
few = settings(max_examples=40, deadline=None)


def logits(seed):
    return np.random.default_rng(seed).normal(0, 3, (CLASSES, 3, 4, 5)).astype(np.float32)


def written(scores, order):
    """The label map of code that thresholds each probability, and writes one class at a time."""
    labels = np.zeros(scores.shape[1:], int)
    for channel in order:
        labels[expit((scores[channel] - scores[0]).astype(np.float64)) > 0.5] = channel
    return labels


@few
@given(st.integers(0, 1 << 16), orders)
def test_later_classes_replace_earlier_ones(seed, order):
    scores = logits(seed)
    expected = written(scores, order) if order else scores.argmax(0)
    assert np.array_equal(decide(scores, order), expected)


@few
@given(st.integers(0, 1 << 16), orders, st.sampled_from([-9, 0, 9]))
def test_the_confidence_is_the_probability_of_the_class(seed, order, shift):
    scores = logits(seed)
    scores[1:] += shift
    classes = decide(scores, order)
    found = np.take_along_axis(probabilities(scores, order), classes[None].astype(int), 0)[0]
    expected = np.where(classes > 0, found, 0)
    np.testing.assert_allclose(confidence(scores, classes, order), expected, rtol=1e-4)


@few
@given(st.integers(0, 1 << 16), orders)
def test_probabilities_of_overlapping_classes_are_independent(seed, order):
    scores = logits(seed)
    found = probabilities(scores, order)
    if not order:
        np.testing.assert_allclose(found, softmax_of(scores, axis=0), rtol=1e-5)
        return
    np.testing.assert_allclose(found[1:], expit(scores[1:] - scores[0]), rtol=1e-5)
    assert np.array_equal(found[0] > 0.5, decide(scores, order) == 0)


@pytest.mark.parametrize(("classes", "dtype"), [(256, np.uint8), (300, np.uint16)])
def test_many_classes_need_two_bytes(classes, dtype):
    scores = np.zeros((classes, 2), np.float32)
    scores[-1] = 1
    for order in ((), range(1, classes)):
        assert decide(scores, order).tolist() == [classes - 1] * 2
        assert decide(scores, order).dtype == dtype
