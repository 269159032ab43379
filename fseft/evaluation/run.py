"""Score predicted label files against the reference ones, on the native grid."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from fseft import parallel, workspace
from fseft.errors import FseftError, did_you_mean
from fseft.inference.index import METRICS
from fseft.metrics.scores import Scores, StructureScore, score_case, summarise, to_csv
from fseft.volume.geometry import geometry_mismatch, reorient
from fseft.volume.image import Volume, read_labels

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from fseft.evaluation.matching import Pairing
    from fseft.parallel import Workers

    Labels = np.ndarray[Any, np.dtype[np.integer[Any]]]

_FEW = 8  # cases that are scored sooner than processes have started


class Evaluation(Scores):
    """The scores, and what was not scored: reference structures, cases without a counterpart, support cases."""

    left_out: tuple[str, ...] = ()
    without_prediction: tuple[str, ...] = ()
    without_label: tuple[str, ...] = ()
    support: tuple[str, ...] = ()
    adapters: dict[str, str] = Field(
        default_factory=dict, description="sha256 and place of those that predicted"
    )


@dataclass(frozen=True)
class Structure:
    """A structure and its voxel value on either side, which may differ."""

    name: str
    predicted: int
    reference: int


@dataclass(frozen=True)
class ScoringTask:
    """The scoring of one case."""

    prediction: Path
    label: Path
    structures: tuple[Structure, ...]
    ignore: int | None
    tolerance_mm: float


def parse_tolerance(text: str) -> float:
    """Millimetres of `2mm` or `2`.

    Raises:
        FseftError: This is no length of 0 or more.
    """
    try:
        value = float(text.strip().lower().removesuffix("mm"))
    except ValueError:
        value = -1.0
    if not (math.isfinite(value) and value >= 0):
        raise FseftError(f"the tolerance {text!r} is no length in mm", hint="Write it as 2mm.")
    return value


def evaluate(
    pairing: Pairing,
    *,
    tolerance_mm: float = 2.0,
    only: Sequence[str] = (),
    with_support: bool = False,
    workers: Workers | None = None,
    done: Callable[[str], None] | None = None,
) -> Evaluation:
    """Score every case of a pairing.

    Structures are matched by name where both sides name them, else by voxel value; where no side does they
    are `class_<value>`, of the values found in the labels. A voxel to ignore counts on neither side.

    Args:
        pairing: What to score.
        tolerance_mm: The surface deviation that NSD accepts.
        only: Names of the structures to score; all by default.
        with_support: Also score the scans that the adapter has learned from.
        workers: Who does it; by default one process for a few cases, else one per core.
        done: Called with the name of each case that is scored.

    Raises:
        FseftError: No structure in common, no case but those of the support, a file is damaged, or a prediction does
            not lie on the grid of its label. The other cases are tried first.
    """
    support = () if with_support else pairing.seen
    pairing = _without(pairing, support)
    workers = workers or (1 if len(pairing.cases) < _FEW else parallel.default_workers())
    known = _structures(pairing.predicted, pairing.reference or _found_names(pairing, workers))
    chosen = _chosen(known, only)
    tasks = {
        case: ScoringTask(
            prediction.absolute(), label.absolute(), chosen, pairing.ignore, tolerance_mm
        )
        for case, (prediction, label) in pairing.cases.items()
    }
    scored = parallel.map_cases(_score, tasks, workers=workers, done=done)
    found = set().union(*(values for _, values in scored.values())) - {pairing.ignore}
    summary = summarise({case: scores for case, (scores, _) in scored.items()}, tolerance_mm)
    return Evaluation(
        **dict(summary),
        left_out=_left_out(known, pairing.reference or {}, found),
        without_prediction=pairing.without_prediction,
        without_label=pairing.without_label,
        support=support,
        adapters=pairing.adapters,
    )


def write_evaluation(evaluation: Evaluation, folder: Path) -> tuple[Path, Path]:
    """Write `metrics.json`, and `metrics.csv` with one line per case and structure."""
    document, table = folder / METRICS, folder / "metrics.csv"
    workspace.write_document(document, evaluation)
    workspace.write_text(table, to_csv(evaluation))
    return document, table


def _without(pairing: Pairing, support: Sequence[str]) -> Pairing:
    """A score on what an adapter has learned from says nothing about new scans."""
    cases = {case: files for case, files in pairing.cases.items() if case not in support}
    if not cases:
        raise FseftError(
            f"the adapter has learned from every case ({', '.join(support)})",
            hint="Score other cases, or these with --with-support.",
        )
    return replace(pairing, cases=cases)


def _found_names(pairing: Pairing, workers: Workers) -> dict[str, int] | None:
    """`class_<value>` of the values in the labels, where neither side has names."""
    if pairing.predicted is not None:
        return None
    files = {case: label.absolute() for case, (_, label) in pairing.cases.items()}
    found = set().union(*parallel.map_cases(_values, files, workers=workers).values())
    return {f"class_{value}": value for value in sorted(found)}


def _structures(
    predicted: dict[str, int] | None, reference: dict[str, int] | None
) -> tuple[Structure, ...]:
    """The structures that both sides know; where one side has no names, those of the other stand for both."""
    expected = reference if reference is not None else predicted or {}
    held = predicted if predicted is not None else expected
    common = tuple(
        Structure(name, held[name], value) for name, value in expected.items() if name in held
    )
    if not common:
        cause = (
            f"no structure in common: predictions {', '.join(held)}; labels {', '.join(expected)}"
        )
        raise FseftError(cause, hint="Give the labels of what was predicted.")
    return common


def _chosen(known: Sequence[Structure], only: Sequence[str]) -> tuple[Structure, ...]:
    names = [structure.name for structure in known]
    for name in only:
        if name not in names:
            raise FseftError(
                f"there is no structure {name!r} to score", hint=did_you_mean(name, names)
            )
    return tuple(structure for structure in known if not only or structure.name in only)


def _left_out(
    known: Sequence[Structure], reference: dict[str, int], found: set[int]
) -> tuple[str, ...]:
    """Structures of the reference that the predictions cannot hold, by name or else by the value found."""
    scored = {structure.reference for structure in known}
    names = {value: name for name, value in reference.items()}
    return tuple(
        names.get(value, f"class_{value}") for value in sorted((found | set(names)) - scored)
    )


def _values(path: Path) -> set[int]:
    """The voxel values of a label file, background left out."""
    return {int(value) for value in np.unique(read_labels(path).array) if value}


def _score(task: ScoringTask) -> tuple[dict[str, StructureScore], set[int]]:
    """The scores of a case, and the values in its reference."""
    prediction, stored = read_labels(task.prediction), read_labels(task.label)
    # Converters from DICOM may leave a label with other axes than its image; that loses nothing.
    reference = Volume(*reorient(stored.array, stored.geometry, prediction.geometry.orientation))
    difference = geometry_mismatch(prediction.geometry, reference.geometry)
    if difference:
        raise FseftError(
            f"is not on the grid of its label {task.label.name}: {difference}",
            file=task.prediction,
            hint="Predict on the original image, or resample the prediction to it.",
        )
    predicted, expected = prediction.array[0], reference.array[0]
    values = {int(value) for value in np.unique(expected) if value}
    predicted = _in_reference_values(predicted, task.structures)
    if task.ignore is not None:
        counted = expected != task.ignore
        predicted, expected = predicted * counted, expected * counted
    ids = {structure.name: structure.reference for structure in task.structures}
    return score_case(
        predicted, expected, ids, reference.geometry.spacing_mm, task.tolerance_mm
    ), values


def _in_reference_values(labels: Labels, structures: Sequence[Structure]) -> Labels:
    if all(structure.predicted == structure.reference for structure in structures):
        return labels
    highest = max(structure.reference for structure in structures)
    renamed = np.zeros(labels.shape, np.min_scalar_type(highest))
    for structure in structures:
        renamed[labels == structure.predicted] = structure.reference
    return renamed
