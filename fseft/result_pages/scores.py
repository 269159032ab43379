"""Tables of scores and volumes."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from fseft.metrics.fields import explain
from fseft.reporting.page import Column, Section, Table
from fseft.volume.image import read_labels
from fseft.volume.label_values import label_volumes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fseft.evaluation.run import Evaluation
    from fseft.experiment.callbacks import Callbacks
    from fseft.metrics.fields import MetricColumn
    from fseft.reporting.page import Value
    from fseft.result_pages.cases import CaseResult, PredictedCases

    Volumes = Mapping[str, Mapping[str, float]]

_STATES = {"missed": "missed", "false-positive": "not in the reference"}
MAX_COLUMNS = 8
"""Structures up to which a table has a column for each."""


def structure_section(evaluation: Evaluation) -> Section:
    """Returns the scores of each structure: means over the cases, and how often it was missed."""
    metrics = evaluation.metrics
    titles = [Column(metric.title, metric.digits) for metric in metrics]
    spread = f"SD of {metrics[0].title}" if metrics else "SD"
    columns = (
        *(Column("structure"), *titles),
        *(Column(title) for title in (spread, "cases", "missed", "false", "none")),
    )
    rows: list[tuple[Value, ...]] = []
    for name, summary in evaluation.classes.items():
        counts = (summary.cases, summary.missed, summary.false_positive, summary.both_empty)
        means = [summary.mean.get(metric.key) for metric in metrics]
        first_sd = summary.std.get(metrics[0].key) if metrics else None
        rows.append((name, *means, first_sd, *counts))
    counts_note = (
        "Missed, false, none: cases with the structure in the reference only, in the prediction "
        "only, in neither (excluded from the means)."
    )
    text = f"{explain(metrics, evaluation.tolerance_mm)} {counts_note}"
    table = Table("Means over the cases", columns, rows)
    return Section("Scores by structure", text, tables=(table,))


def case_section(predicted: PredictedCases) -> Section:
    """Returns the scores of each case, the worst first."""
    metrics = predicted.metrics
    ranked = predicted.ranked()
    means = [Column(metric.title, metric.digits) for metric in metrics]
    rows: list[tuple[Value, ...]] = [
        (case.name, *(case.mean(metric) for metric in metrics), _remark(case)) for case in ranked
    ]
    has_remarks = any(row[-1] for row in rows)
    if not has_remarks:
        rows = [row[:-1] for row in rows]
    columns = [Column("case"), *means, *([Column("remark")] if has_remarks else [])]
    tables = [Table("Means over the structures", columns, rows)]
    structures = [name for name in predicted.cases[0].labels if _is_scored(name, ranked)]
    if 1 < len(structures) <= MAX_COLUMNS:
        tables.append(_structures_by_case(ranked, structures, metrics[0]))
    return Section("Scores by case", "The worst case first.", tables=tables)


def _is_scored(structure: str, cases: Iterable[CaseResult]) -> bool:
    return any(structure in case.scores for case in cases)


def _remark(case: CaseResult) -> str:
    """Names the structures that only one of prediction and reference has."""
    parts = []
    for state, words in _STATES.items():
        names = [name for name, score in case.scores.items() if score.state == state]
        if names:
            parts.append(f"{words}: {', '.join(names)}")
    return "; ".join(parts)


def _structures_by_case(
    cases: Iterable[CaseResult], structures: list[str], metric: MetricColumn
) -> Table:
    columns = [Column("case"), *(Column(name, metric.digits) for name in structures)]
    rows = []
    for case in cases:
        scores = [case.scores.get(name) for name in structures]
        values = [score.metrics.get(metric.key) if score else None for score in scores]
        rows.append((case.name, *values))
    return Table(metric.title, columns, rows)


def case_volumes(predicted: PredictedCases, callbacks: Callbacks) -> Volumes:
    """Returns case -> structure -> predicted volume in ml; 0 for a structure without a voxel.

    Args:
        predicted: The cases.
        callbacks: Observer of the reading.

    Raises:
        FseftError: A label map is damaged.
    """
    volumes = {}
    with callbacks.progress("volumes", len(predicted.cases)) as advance:
        for case in predicted.cases:
            volumes[case.name] = _measure(case)
            advance(case.name)
    return volumes


def _measure(case: CaseResult) -> dict[str, float]:
    known = {name: score.volume_ml for name, score in case.scores.items()}
    if known.keys() == case.labels.keys():
        return known
    labels = read_labels(case.prediction, case=case.name)
    found = label_volumes(labels.array, labels.geometry.voxel_volume_mm3)
    return {name: found.get(value, 0.0) for name, value in case.labels.items()}


def volume_section(predicted: PredictedCases, volumes: Volumes) -> Section:
    """Returns the volumes of the structures, of each case or as a range over the cases."""
    structures = list(predicted.cases[0].labels)
    text = "In millilitres."
    if len(structures) > MAX_COLUMNS:
        return Section("Volumes", text, tables=(_volume_ranges(structures, volumes),))
    columns = [Column("case"), *(Column(name, 2) for name in structures)]
    rows = [
        (case.name, *(volumes[case.name].get(name) for name in structures))
        for case in predicted.cases
    ]
    tables = [Table("Prediction", columns, rows)]
    references = [case for case in predicted.cases if case.scores]
    if references:
        rows = [(case.name, *_reference_volumes(case, structures)) for case in references]
        tables.append(Table("Reference", columns, rows))
    return Section("Volumes", text, tables=tables)


def _reference_volumes(case: CaseResult, structures: list[str]) -> list[float | None]:
    scores = [case.scores.get(name) for name in structures]
    return [score.reference_ml if score else None for score in scores]


def _volume_ranges(structures: list[str], volumes: Volumes) -> Table:
    titles = ("smallest, ml", "median, ml", "largest, ml")
    columns = [Column("structure"), *(Column(title, 2) for title in titles)]
    rows = []
    for name in structures:
        values = [case.get(name, 0.0) for case in volumes.values()]
        rows.append((name, min(values), median(values), max(values)))
    return Table("Over the cases", columns, rows)
