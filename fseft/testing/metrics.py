"""Checks of the contract of a metric, as parameters of a test."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from fseft.metrics.fields import MetricColumn
from fseft.metrics.masks import MaskPair
from fseft.metrics.scores import StructureScore
from fseft.metrics.scoring import score_structure
from fseft.metrics.selection import select_metrics
from fseft.testing.lazy_imports import assert_listed_without_torch
from fseft.testing.parameters import parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from _pytest.mark import ParameterSet
    from numpy.typing import NDArray

SHAPE = (7, 8, 9)
SPACING_MM = (0.8, 0.8, 2.5)
OTHER_BOXES = ((0, 2), (0, 7), (4, 7))
"""First and last plane of predictions that are smaller, larger and shifted."""


def metric_checks(name: str, *, xfail: Mapping[str, str] | None = None) -> list[ParameterSet]:
    """Returns the checks of a metric as parameters of a test.

    ```python
    @pytest.mark.parametrize("check", metric_checks("my-metric"))
    def test_my_metric(check):
        check()
    ```

    Args:
        name: Name of the metric in the registry.
        xfail: Check -> reason why the metric cannot pass it; it must then fail.

    Raises:
        ValueError: `xfail` names an unknown check.
    """
    return parameters(name, CHECKS, name, xfail)


def _box(start: int, stop: int) -> NDArray[np.bool_]:
    mask = np.zeros(SHAPE, bool)
    mask[start:stop, 2:6, 2:6] = True
    return mask


def _masks(prediction: NDArray[np.bool_], reference: NDArray[np.bool_]) -> MaskPair:
    return MaskPair(prediction, reference, spacing_mm=SPACING_MM, image_shape=SHAPE)


def _score(name: str, prediction: NDArray[np.bool_], reference: NDArray[np.bool_]) -> float | None:
    metrics = select_metrics([name])
    score = score_structure(_masks(prediction, reference), metrics)
    return score.metrics[metrics[0].key]


def returns_a_number(name: str) -> None:
    """Masks that overlap in part have a finite score."""
    value = _score(name, _box(1, 4), _box(2, 5))
    assert value is not None
    assert math.isfinite(value)


def prefers_a_perfect_prediction(name: str) -> None:
    """The reference scores at least as well as any other mask, by the direction of the spec.

    It scores better than at least one of them. The values of a metric whose best value is zero have
    both signs.
    """
    column = MetricColumn.of(select_metrics([name])[0])
    perfect = _score(name, _box(2, 5), _box(2, 5))
    assert perfect is not None
    others = [_score(name, _box(start, stop), _box(2, 5)) for start, stop in OTHER_BOXES]
    values = [other for other in others if other is not None]
    assert len(values) == len(others)
    ranks = [column.rank(value) for value in values]
    assert column.rank(perfect) >= max(ranks)
    assert column.rank(perfect) > min(ranks)
    assert column.direction != "zero" or min(values) < 0 < max(values)


def scores_absent_structures(name: str) -> None:
    """A structure in only one mask has the value of the spec, one in neither may be undefined."""
    empty = np.zeros(SHAPE, bool)
    for prediction, reference in ((empty, _box(2, 5)), (_box(2, 5), empty)):
        value = _score(name, prediction, reference)
        assert value is not None
        assert math.isfinite(value)
    assert _score(name, empty, empty) == select_metrics([name])[0].both_empty


def leaves_the_masks_unchanged(name: str) -> None:
    """Other metrics see the same masks."""
    masks = _masks(_box(1, 4), _box(2, 5))
    score_structure(masks, select_metrics([name]))
    assert np.array_equal(masks.prediction, _box(1, 4))
    assert np.array_equal(masks.reference, _box(2, 5))


def is_read_from_its_own_file(name: str) -> None:
    """A score with the metric is the same after it was written and read."""
    masks = _masks(_box(1, 4), _box(2, 5))
    score = score_structure(masks, select_metrics([name]))
    text = score.model_dump_json()
    assert StructureScore.model_validate_json(text) == score


def loads_no_torch_before_it_is_chosen(name: str) -> None:
    """The plugin that provides the metric is listed without torch."""
    assert_listed_without_torch("metric", name)


CHECKS: tuple[Callable[[str], None], ...] = (
    returns_a_number,
    prefers_a_perfect_prediction,
    scores_absent_structures,
    leaves_the_masks_unchanged,
    is_read_from_its_own_file,
    loads_no_torch_before_it_is_chosen,
)
