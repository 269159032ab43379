"""The predicted cases of a folder: label maps, scans, references and scores."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fseft.errors import FseftError
from fseft.evaluation.matching import match_files
from fseft.evaluation.run import Evaluation, evaluate
from fseft.inference.index import INDEX, METRICS, label_map, read_index
from fseft.inference.scan_files import gather_scans
from fseft.metrics.scores import mean
from fseft.model_zoo.adapter_file import read_manifest
from fseft.workspace import file_digest, read_document

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fseft.evaluation.run import ScoredFiles
    from fseft.experiment.callbacks import Callbacks
    from fseft.metrics.fields import MetricColumn
    from fseft.metrics.scores import StructureScore
    from fseft.schemas import PredictedCase, Predictions

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CaseResult:
    """A predicted case.

    Attributes:
        name: Name of the case.
        prediction: Its label map.
        labels: Structure -> voxel value in the label map.
        scan: Files of the scan; empty if they are unknown.
        reference: The reference label map; None if there is none.
        files: How structures are written in the reference.
        scores: Structure -> its scores; empty without a reference.
        seen: Whether an adapter was trained on the scan.
    """

    name: str
    prediction: Path
    labels: Mapping[str, int]
    scan: tuple[Path, ...] = ()
    reference: Path | None = None
    files: ScoredFiles | None = None
    scores: Mapping[str, StructureScore] = field(default_factory=dict)
    seen: bool = False

    def mean(self, metric: MetricColumn) -> float | None:
        """Returns the mean of a metric over the structures; None where it is undefined."""
        return mean(score.metrics.get(metric.key) for score in self.scores.values())


@dataclass(frozen=True)
class PredictedCases:
    """Predicted cases with their scores.

    Attributes:
        cases: The cases, by name.
        metrics: Metrics of the scores; none without references.
        adapters: sha256 -> path of the adapters.
        evaluation: The scores of all cases; None without references.
    """

    cases: tuple[CaseResult, ...]
    metrics: tuple[MetricColumn, ...] = ()
    adapters: Mapping[str, str] = field(default_factory=dict)
    evaluation: Evaluation | None = None

    def ranked(self) -> list[CaseResult]:
        """Returns the cases with a score, the worst first by the first metric."""
        if not self.metrics:
            return []
        metric = self.metrics[0]
        means = [(case.mean(metric), case) for case in self.cases]
        ranks = [(metric.rank(value), case) for value, case in means if value is not None]
        return [case for _, case in sorted(ranks, key=lambda item: item[0])]


def read_cases(
    folder: Path,
    *,
    labels: Path | None = None,
    scans: Path | None = None,
    callbacks: Callbacks | None = None,
) -> PredictedCases:
    """Reads the predictions of a folder, with the scores of `fseft evaluate`.

    Args:
        folder: Folder that `fseft predict` has written.
        labels: Folder of references; they are scored if `metrics.json` does not have their scores.
        scans: Folder of the scans, where they are not where `predict` read them.
        callbacks: Observer of the scoring.

    Raises:
        FseftError: The folder has no predictions, a label map is missing, or the references do not
            fit.
    """
    index = read_index(folder / INDEX)
    finished = {name: case for name, case in index.cases.items() if case.key} if index else {}
    if index is None or not finished:
        hint = "Predict first, or pass another folder."
        raise FseftError("contains no predictions", file=folder, hint=hint)
    evaluation = _evaluation(folder, finished, labels, callbacks)
    scan_files = _scan_files(finished, index, scans)
    cases = [
        _case(folder, name, index, evaluation, scan_files.get(name, ()))
        for name in sorted(finished)
    ]
    metrics = evaluation.metrics if evaluation else ()
    return PredictedCases(tuple(cases), metrics, index.adapters, evaluation)


def _case(
    folder: Path,
    name: str,
    index: Predictions,
    evaluation: Evaluation | None,
    scan: tuple[Path, ...],
) -> CaseResult:
    prediction = _label_file(folder, name)
    if not prediction.is_file():
        hint = "Predict again, with nifti or seg.nrrd among the formats."
        raise FseftError("the label map is missing", case=name, file=prediction, hint=hint)
    files = evaluation.files if evaluation else None
    reference = files.references.get(name) if files else None
    return CaseResult(
        name=name,
        prediction=prediction,
        labels=index.labels,
        scan=scan,
        reference=Path(reference) if reference else None,
        files=files,
        scores=evaluation.cases.get(name, {}) if evaluation else {},
        seen=index.cases[name].seen,
    )


def _evaluation(
    folder: Path,
    cases: Mapping[str, PredictedCase],
    labels: Path | None,
    callbacks: Callbacks | None,
) -> Evaluation | None:
    """Returns the stored scores, or those of the references; None if there is neither."""
    stored = _stored_evaluation(folder, cases)
    if labels is None:
        return stored if stored and not _references_changed(folder, stored) else None
    matched = match_files(folder, labels)
    references = {case: label.absolute() for case, (_, label) in matched.cases.items()}
    if stored and stored.files and _are_scored(references, stored.files):
        paths = {case: str(references[case]) for case in stored.files.references}
        files = stored.files.model_copy(update={"references": paths})
        return stored.model_copy(update={"files": files})
    return evaluate(matched, callbacks=callbacks)


def _are_scored(references: Mapping[str, Path], files: ScoredFiles) -> bool:
    """Returns whether scores are those of the references: of the same bytes, or else paths."""
    if not files.references.keys() <= references.keys():
        return False
    return all(
        _is_same(references[case], files.reference_sha256[case])
        if case in files.reference_sha256
        else str(references[case]) == path
        for case, path in files.references.items()
    )


def _stored_evaluation(folder: Path, cases: Mapping[str, PredictedCase]) -> Evaluation | None:
    """Reads `metrics.json`; None if it is missing, or of other predictions."""
    path = folder / METRICS
    if not path.is_file():
        return None
    evaluation = read_document(path, Evaluation)
    digests = evaluation.files.predictions if evaluation.files else {}
    changed = [
        name
        for name, digest in digests.items()
        if name not in cases or not _is_same(_label_file(folder, name), digest)
    ]
    if changed:
        logger.warning("%s: not used, as %s has changed since; evaluate again", path, changed[0])
        return None
    return evaluation


def _references_changed(folder: Path, evaluation: Evaluation) -> bool:
    """Returns whether a reference has other content than when it was scored, with a warning."""
    if evaluation.files is None:
        return False
    for case, digest in evaluation.files.reference_sha256.items():
        path = Path(evaluation.files.references[case])
        if path.is_file() and file_digest(path) != digest:
            logger.warning(
                "%s: not used, as the reference %s has changed since; evaluate again",
                folder / METRICS,
                path,
            )
            return True
    return False


def _label_file(folder: Path, name: str) -> Path:
    """Returns the path of a label map, as `evaluate` chooses it among the formats."""
    slicer = folder / f"{name}.seg.nrrd"
    nifti = folder / label_map(name)
    return slicer if slicer.is_file() and not nifti.is_file() else nifti


def _is_same(path: Path, digest: str) -> bool:
    return path.is_file() and file_digest(path) == digest


def _scan_files(
    cases: Mapping[str, PredictedCase], index: Predictions, folder: Path | None
) -> Mapping[str, tuple[Path, ...]]:
    """Returns case -> files of its scan, as `predict` recorded them or in a folder."""
    if folder is not None:
        return gather_scans((folder,), *_channels(index))
    return {name: tuple(map(Path, case.scan)) for name, case in cases.items()}


def _channels(index: Predictions) -> tuple[tuple[str, ...], int]:
    """Returns the channels of the adapters, as far as they exist, and how many are required."""
    for path in index.adapters.values():
        with suppress(FseftError):
            manifest = read_manifest(Path(path))
            return manifest.channels, len(manifest.required_channels)
    return ("image",), 1
