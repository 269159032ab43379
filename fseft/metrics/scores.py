"""Scores of structures, and their summary over cases."""

from __future__ import annotations

import csv
import io
from statistics import fmean, stdev
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from fseft.metrics.fields import MetricColumn, MetricFields
from fseft.schemas import Document

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fseft.plugin import MetricSpec

State = Literal["both-present", "missed", "false-positive", "both-empty"]


class StructureScore(MetricFields):
    """Score of one structure in one case.

    Each metric defines its value for a structure that is absent from prediction or reference
    (`MetricSpec.missing`, `MetricSpec.both_empty`). None is an undefined value: it is left out of
    means, and its case is counted.

    Attributes:
        metrics: Values by key of the metric, as in `dice` or `hd95_mm`.
        volume_ml: Volume of the prediction.
        reference_ml: Volume of the reference.
        state: Which of prediction and reference have the structure: `missed` is the reference
            only, `false-positive` the prediction only.
    """

    _affixes: ClassVar[dict[str, tuple[str, str]]] = {"metrics": ("", "")}

    metrics: dict[str, float | None]
    volume_ml: float
    reference_ml: float
    state: State


class ClassSummary(MetricFields):
    """Summary of one structure over all cases.

    Attributes:
        mean: Mean of each metric over the cases in which it is defined.
        std: Sample standard deviation over the same cases; None below two cases.
        cases: Number of scored cases.
        missed: Cases with the structure in the reference only.
        false_positive: Cases with the structure in the prediction only.
        both_empty: Cases with the structure in neither.
    """

    _affixes: ClassVar[dict[str, tuple[str, str]]] = {"std": ("", "_std"), "mean": ("", "")}

    mean: dict[str, float | None]
    std: dict[str, float | None]
    cases: int
    missed: int
    false_positive: int
    both_empty: int


class Scores(MetricFields, Document):
    """Scores of a set of cases.

    Attributes:
        mean: Mean of each metric over the means of the classes.
        tolerance_mm: Surface deviation that tolerance-based metrics accepted.
        classes: Summary by structure.
        cases: Scores by case and structure.
        metrics: Metrics that were computed.
    """

    _affixes: ClassVar[dict[str, tuple[str, str]]] = {"mean": ("mean_", "")}

    mean: dict[str, float | None] = Field(default={})
    tolerance_mm: float
    classes: dict[str, ClassSummary]
    cases: dict[str, dict[str, StructureScore]]
    metrics: tuple[MetricColumn, ...] = ()


def aggregate_scores(
    cases: Mapping[str, Mapping[str, StructureScore]],
    tolerance_mm: float,
    *,
    metrics: Sequence[MetricSpec],
) -> Scores:
    """Summarises the scores of many cases.

    Args:
        cases: Scores by case and structure; a case may lack structures that others have.
        tolerance_mm: Tolerance that the scores were computed with.
        metrics: Metrics that the scores hold.
    """
    names = dict.fromkeys(name for scores in cases.values() for name in scores)
    keys = [metric.key for metric in metrics]
    classes = {
        name: _aggregate_class([scores[name] for scores in cases.values() if name in scores], keys)
        for name in names
    }
    return Scores(
        mean={key: mean(summary.mean[key] for summary in classes.values()) for key in keys},
        metrics=tuple(MetricColumn.of(metric) for metric in metrics),
        tolerance_mm=tolerance_mm,
        classes=classes,
        cases={case: dict(scores) for case, scores in cases.items()},
    )


def _aggregate_class(scores: Sequence[StructureScore], keys: Sequence[str]) -> ClassSummary:
    states = [score.state for score in scores]
    return ClassSummary(
        mean={key: mean(score.metrics[key] for score in scores) for key in keys},
        std={key: standard_deviation(score.metrics[key] for score in scores) for key in keys},
        cases=len(scores),
        missed=states.count("missed"),
        false_positive=states.count("false-positive"),
        both_empty=states.count("both-empty"),
    )


def mean(values: Iterable[float | None]) -> float | None:
    """Returns the mean of the values that are not None; None if there are none."""
    defined = [value for value in values if value is not None]
    return fmean(defined) if defined else None


def standard_deviation(values: Iterable[float | None]) -> float | None:
    """Returns the sample standard deviation of the values that are not None; None below two."""
    defined = [value for value in values if value is not None]
    return stdev(defined) if len(defined) > 1 else None


def to_csv(scores: Scores) -> str:
    """Returns a CSV table with a line per case and structure; undefined values are empty cells."""
    lines = [
        {"case": case, "structure": name, **score.model_dump()}
        for case, structures in scores.cases.items()
        for name, score in structures.items()
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]) if lines else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()
