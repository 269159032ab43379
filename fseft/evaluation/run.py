"""Scores predicted label maps on the grid of the original image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from fseft import parallel, workspace
from fseft.errors import FseftError, did_you_mean
from fseft.experiment.callbacks import Callbacks
from fseft.inference.index import METRICS
from fseft.metrics.scores import Scores, StructureScore, aggregate_scores, to_csv
from fseft.metrics.scoring import score_case
from fseft.metrics.selection import metric_provenance, select_metrics
from fseft.schemas import FULLY_ANNOTATED, Annotation, FrozenModel, Provenance
from fseft.schemas.base import optional
from fseft.volume._logging import warn_once
from fseft.volume.annotation import is_annotated, mark_unannotated
from fseft.volume.geometry import geometry_mismatch, reorient, shear_degrees
from fseft.volume.image import Volume, read_labels
from fseft.volume.label_values import UNANNOTATED, present_values, translate
from fseft.volume.shear import MAX_DEGREES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from fseft.evaluation.matching import MatchedCases
    from fseft.parallel import Workers
    from fseft.plugin import MetricSpec
    from fseft.schemas import MissingLabel

    Labels = np.ndarray[Any, np.dtype[np.integer[Any]]]

_MIN_PARALLEL_CASES = 8  # fewer cases are scored faster than processes start


class ScoredFiles(FrozenModel):
    """The files that were compared, and how structures are written in the references.

    Attributes:
        predictions: Case -> sha256 of the predicted label map.
        references: Case -> path of the reference.
        reference_sha256: Case -> sha256 of the reference; empty in files of earlier versions.
        values: Structure -> voxel values that belong to it in the references.
        annotation: Which voxels of the references count.
    """

    predictions: dict[str, str]
    references: dict[str, str]
    reference_sha256: dict[str, str] = optional({})
    values: dict[str, tuple[int, ...]]
    annotation: Annotation = FULLY_ANNOTATED


class Evaluation(Scores):
    """Scores of a set of predictions, and the cases and structures that were not scored.

    Attributes:
        left_out: Structures of the references that the predictions cannot contain.
        without_prediction: Cases that have a reference only.
        without_label: Cases that have a prediction only.
        support: Cases that were not scored because the adapter was trained on them.
        adapters: Path of each adapter that predicted, by its sha256.
        plugins: Packages of the metrics.
        files: The files that were compared; None in files of earlier versions.
    """

    left_out: tuple[str, ...] = ()
    without_prediction: tuple[str, ...] = ()
    without_label: tuple[str, ...] = ()
    support: tuple[str, ...] = ()
    adapters: dict[str, str] = Field(default_factory=dict)
    plugins: tuple[Provenance, ...] = ()
    files: ScoredFiles | None = optional()


@dataclass(frozen=True)
class Structure:
    """A structure and its voxel values.

    Attributes:
        name: Name of the structure.
        predicted: Its value in the predictions.
        reference: Its value in the references.
        region: All values that belong to it in the references, if structures overlap.
    """

    name: str
    predicted: int
    reference: int
    region: tuple[int, ...] = ()

    @property
    def values(self) -> tuple[int, ...]:
        """All values that belong to it in the references."""
        return self.region or (self.reference,)


@dataclass(frozen=True)
class _Options:
    """Options of the scoring, the same for all cases.

    Attributes:
        structures: The structures to score.
        new_values: Value in the predictions -> value in the references; empty if they agree.
        annotation: Which voxels of the references count.
        missing_label: Meaning of a structure that a reference does not contain.
        tolerance_mm: Surface deviation that tolerance-based metrics accept.
        metrics: Metrics to compute.
    """

    structures: tuple[Structure, ...]
    new_values: dict[int, int]
    annotation: Annotation
    missing_label: MissingLabel
    tolerance_mm: float
    metrics: tuple[MetricSpec, ...]


@dataclass(frozen=True)
class ScoringTask:
    """All that a worker process needs to score one case.

    Attributes:
        prediction: Path of the predicted label map.
        label: Path of the reference.
        options: Options that all cases share.
        annotated: Structures that the reference is listed to annotate; None if it is in no list.
    """

    prediction: Path
    label: Path
    options: _Options
    annotated: frozenset[str] | None = None


@dataclass(frozen=True)
class ScoredCase:
    """Scores of a case by structure, and the voxel values of its reference."""

    scores: dict[str, StructureScore]
    reference_values: set[int]


def evaluate(
    matched: MatchedCases,
    *,
    metrics: Sequence[MetricSpec] = (),
    tolerance_mm: float = 2.0,
    structures: Sequence[str] = (),
    include_training: bool = False,
    workers: Workers | None = None,
    callbacks: Callbacks | None = None,
) -> Evaluation:
    """Scores the matched cases.

    Structures are matched by name if both sides name them, otherwise by voxel value. If neither
    side does, they are called `class_<value>`. Voxels that are not annotated are excluded from both
    sides.

    Args:
        matched: Predictions and references; see `fseft.evaluation.matching.match_files`.
        metrics: Metrics to compute. Default: Dice, NSD, HD95 and volume difference.
        tolerance_mm: Surface deviation that tolerance-based metrics accept.
        structures: Names of the structures to score. Default: all.
        include_training: Also score the cases that the adapter was trained on.
        workers: Number of processes, or address of a dask scheduler. Default: one process for a
            few cases, otherwise one per core.
        callbacks: Observer of the progress.

    Raises:
        FseftError: No structure is on both sides, only training cases are left, a file is damaged,
            or a prediction is not on the grid of its reference. All other cases are tried first.
    """
    callbacks = callbacks or Callbacks()
    support = () if include_training else matched.training_cases
    if support:
        matched = matched.without_training_cases()
    workers = workers or _default_workers(matched)
    common = _common_structures(matched, workers)
    options = _Options(
        _select_structures(common, structures),
        _new_values(common, matched),
        matched.annotation,
        matched.missing_label,
        tolerance_mm,
        tuple(metrics) or select_metrics(),
    )
    tasks = _tasks(matched, options)
    with callbacks.progress("evaluate", len(tasks)) as advance:
        results = parallel.map_cases(_score, tasks, workers=workers, progress=advance)
    return Evaluation(
        **dict(_aggregate(results, options)),
        left_out=_left_out(common, matched, results.values()),
        without_prediction=matched.without_prediction,
        without_label=matched.without_label,
        support=support,
        adapters=matched.adapters,
        plugins=metric_provenance(options.metrics),
        files=_scored_files(tasks, options),
    )


def _aggregate(results: Mapping[str, ScoredCase], options: _Options) -> Scores:
    cases = {case: result.scores for case, result in results.items()}
    return aggregate_scores(cases, options.tolerance_mm, metrics=options.metrics)


def _scored_files(tasks: Mapping[str, ScoringTask], options: _Options) -> ScoredFiles:
    return ScoredFiles(
        predictions={case: workspace.file_digest(task.prediction) for case, task in tasks.items()},
        references={case: str(task.label) for case, task in tasks.items()},
        reference_sha256={case: workspace.file_digest(task.label) for case, task in tasks.items()},
        values={structure.name: structure.values for structure in options.structures},
        annotation=options.annotation,
    )


def write_evaluation(evaluation: Evaluation, folder: Path) -> tuple[Path, Path]:
    """Writes `metrics.json`, and `metrics.csv` with a line per case and structure.

    Both are of the same evaluation, also where several processes write to the folder.

    Args:
        evaluation: The scores.
        folder: Folder of both files.

    Returns:
        The paths of both files.

    Raises:
        FseftError: A file cannot be written.
    """
    document, table = folder / METRICS, folder / "metrics.csv"
    with workspace.file_lock(document):
        workspace.write_document(document, evaluation)
        workspace.write_text(table, to_csv(evaluation))
    return document, table


def _tasks(matched: MatchedCases, options: _Options) -> dict[str, ScoringTask]:
    """Returns the scoring of each case."""
    tasks = {}
    for case, (prediction, label) in matched.cases.items():
        listed = matched.annotated.get(case)
        tasks[case] = ScoringTask(prediction.absolute(), label.absolute(), options, listed)
    return tasks


def _default_workers(matched: MatchedCases) -> int:
    return 1 if len(matched.cases) < _MIN_PARALLEL_CASES else parallel.default_workers()


def _common_structures(matched: MatchedCases, workers: Workers) -> tuple[Structure, ...]:
    """Returns the structures on both sides; a side without names takes those of the other."""
    predicted, reference = matched.prediction_labels, matched.reference_labels
    if predicted is None and not reference:
        reference = _unnamed_structures(matched, workers)
    reference = reference or predicted or {}
    predicted = reference if predicted is None else predicted
    common = tuple(
        Structure(name, predicted[name], value, matched.regions.get(name, ()))
        for name, value in reference.items()
        if name in predicted
    )
    if not common:
        sides = f"predictions {', '.join(predicted)}; labels {', '.join(reference)}"
        raise FseftError(
            f"no structure in common: {sides}",
            hint="Give the labels of the predicted scans, and name structures as in the "
            "predictions (`label_values`).",
        )
    return common


def _unnamed_structures(matched: MatchedCases, workers: Workers) -> dict[str, int]:
    """Returns `class_<value>` for each voxel value of the references."""
    files = {case: label.absolute() for case, (_, label) in matched.cases.items()}
    function = partial(_values, annotation=matched.annotation)
    values_by_case = parallel.map_cases(function, files, workers=workers)
    values: set[int] = set()
    for case_values in values_by_case.values():
        values |= case_values
    return {f"class_{value}": value for value in sorted(values)}


def _select_structures(
    structures: Sequence[Structure], chosen: Sequence[str]
) -> tuple[Structure, ...]:
    names = [structure.name for structure in structures]
    for name in chosen:
        if name not in names:
            message = f"unknown structure {name!r}"
            raise FseftError(message, hint=did_you_mean(name, names))
    if not chosen:
        return tuple(structures)
    return tuple(structure for structure in structures if structure.name in chosen)


def _left_out(
    structures: Sequence[Structure], matched: MatchedCases, results: Iterable[ScoredCase]
) -> tuple[str, ...]:
    """Returns the structures that only the references have, by name or else by voxel value."""
    named = matched.reference_labels or {}
    common = {structure.name for structure in structures}
    missing = {value: name for name, value in named.items() if name not in common}
    known = set(named.values()).union(*(structure.values for structure in structures))
    known = known.union(*matched.regions.values())
    for result in results:
        for value in result.reference_values - known:
            missing[value] = f"class_{value}"
    return tuple(missing[value] for value in sorted(missing))


def _values(path: Path, annotation: Annotation) -> set[int]:
    """Returns the values of the structures in a label file."""
    return _structure_values(mark_unannotated(read_labels(path).array, annotation))


def _structure_values(labels: Labels) -> set[int]:
    return set(present_values(labels)) - {UNANNOTATED}


def _score(task: ScoringTask) -> ScoredCase:
    options = task.options
    prediction, stored = read_labels(task.prediction), read_labels(task.label)
    _warn_if_sheared(task.label, stored)
    # Converters from DICOM may write a label with another axis order than its image.
    reference = Volume(*reorient(stored.array, stored.geometry, prediction.geometry.orientation))
    difference = geometry_mismatch(prediction.geometry, reference.geometry)
    if difference:
        raise FseftError(
            f"is not on the grid of its label {task.label.name}: {difference}",
            file=task.prediction,
            hint="Predict on the original image, or resample the prediction to it.",
        )
    expected = mark_unannotated(reference.array[0], options.annotation)
    values = _structure_values(expected)
    predicted = _in_reference_values(prediction.array[0], options.new_values)
    if options.annotation != FULLY_ANNOTATED:
        counted = is_annotated(expected)
        predicted, expected = predicted * counted, expected * counted
    scores = score_case(
        predicted,
        expected,
        {structure.name: structure.values for structure in _annotated(task, values)},
        reference.geometry.spacing_mm,
        options.tolerance_mm,
        metrics=options.metrics,
    )
    return ScoredCase(scores, values)


def _warn_if_sheared(path: Path, labels: Volume) -> None:
    degrees = shear_degrees(labels.geometry.affine)
    if degrees > MAX_DEGREES:
        cause = f"voxel axes are not perpendicular (off by {degrees:.2g} degrees)"
        warn_once(f"{path}: {cause}; distances are approximate")


def _annotated(task: ScoringTask, present: set[int]) -> tuple[Structure, ...]:
    """Returns the structures that a reference annotates: those in it, and those it is to contain.

    Args:
        task: The case.
        present: Voxel values in the reference.
    """
    options, listed = task.options, task.annotated
    if listed is None and options.missing_label == "absent":
        return options.structures
    return tuple(
        structure
        for structure in options.structures
        if structure.name in (listed or ()) or not present.isdisjoint(structure.values)
    )


def _new_values(common: Sequence[Structure], matched: MatchedCases) -> dict[int, int]:
    """Returns value in the predictions -> value in the references; empty if they agree.

    Other values become background, as they may be those of a region in the references.
    """
    new_values = {structure.predicted: structure.reference for structure in common}
    is_same = all(old == new for old, new in new_values.items())
    if matched.prediction_labels is None or (is_same and not matched.regions):
        return {}
    return new_values


def _in_reference_values(labels: Labels, new_values: Mapping[int, int]) -> Labels:
    """Returns the predicted labels with the voxel values of the reference."""
    if not new_values:
        return labels
    return translate(labels, new_values, np.min_scalar_type(max(new_values.values())))
