"""One trial of a benchmark: adapt, predict, evaluate."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fseft.adaptation.configure import configure
from fseft.adaptation.previous_run import checkpoints
from fseft.adaptation.workflow import select_and_adapt
from fseft.benchmarking.results import Trial
from fseft.errors import FseftError, IncompatibleError
from fseft.evaluation.matching import match_predictions
from fseft.evaluation.run import evaluate, write_evaluation
from fseft.inference.index import INDEX, read_index
from fseft.inference.request import PredictRequest
from fseft.inference.run import predict
from fseft.logs import captured_records
from fseft.metrics.selection import metric_provenance
from fseft.model_zoo.adapter_file import open_adapter
from fseft.schemas import TrainingSet
from fseft.temporaries import remove_folder
from fseft.workspace import digest, file_digest, read_document, write_document

if TYPE_CHECKING:
    from pathlib import Path

    from fseft.adaptation.request import AdaptRequest
    from fseft.adaptation.run import Adaptation
    from fseft.benchmarking.test_split import TestSplit
    from fseft.evaluation.run import Evaluation
    from fseft.experiment.callbacks import Callbacks
    from fseft.plugin import MetricSpec
    from fseft.workspace import Workspace


@dataclass(frozen=True)
class BenchmarkData:
    """Data that all trials share.

    Attributes:
        test_split: Test cases, and the cases to draw training cases from.
        structures: Structures to score.
        plan_warnings: Warnings of the plans, which have been logged.
    """

    test_split: TestSplit
    structures: tuple[str, ...]
    plan_warnings: tuple[str, ...]


@dataclass(frozen=True)
class TrialConfig:
    """Configuration of a trial, which may run in another process.

    Attributes:
        request: The adaptation.
        data: Data that all trials share.
        workspace: Folder of fingerprints, preprocessed cases and models.
        tolerance_mm: Surface deviation that tolerance-based metrics accept.
        metrics: Metrics to compute.
        threads: Number of threads of torch; 0 keeps its default.
    """

    request: AdaptRequest
    data: BenchmarkData
    workspace: Workspace
    tolerance_mm: float
    metrics: tuple[MetricSpec, ...]
    threads: int

    @property
    def empty_trial(self) -> Trial:
        """The trial without results."""
        request = self.request
        return Trial(
            model=request.model.name,
            method=request.method.name,
            k=request.k,
            seed=request.seed,
        )

    def key(self, adapter: Path) -> str:
        """Returns a digest of all that the scores of an adapter depend on."""
        sources = metric_provenance(self.metrics)
        foreign = [source.model_dump() for source in sources if source.distribution != "fseft"]
        return digest(
            file_digest(adapter),
            self.data.test_split.key,
            self.data.structures,
            self.tolerance_mm,
            [metric.key for metric in self.metrics],
            *([foreign] if foreign else []),
        )


def run_trial(config: TrialConfig, callbacks: Callbacks | None = None) -> Trial:
    """Adapts, predicts and evaluates; steps that were done before with the same inputs are skipped.

    Args:
        config: The trial.
        callbacks: Observe the adaptation.

    Returns:
        The trial; with the reason as `incompatibility` if method, model and structures cannot be
        combined.

    Raises:
        FseftError: A step fails.
    """
    if config.threads:
        import torch

        torch.set_num_threads(config.threads)
    request, workspace = config.request, config.workspace
    with captured_records() as records:
        try:
            adaptation = select_and_adapt(configure(request, workspace), workspace, callbacks)
            _remove_checkpoints(adaptation.folder)
        except IncompatibleError as error:
            return config.empty_trial.model_copy(update={"incompatibility": error.cause})
    messages = [record.msg for record in records if record.levelno >= logging.WARNING]
    key = config.key(adaptation.adapter)
    document = adaptation.folder / "trial.json"
    if not request.overwrite:
        previous = _previous_trial(document)
        if previous is not None and previous.key == key:
            return previous
    scores = _score_adapter(config, adaptation)
    new_messages = [message for message in messages if message not in config.data.plan_warnings]
    trial = _trial(config, adaptation, scores).model_copy(
        update={"key": key, "warnings": tuple(new_messages)}
    )
    write_document(document, trial)
    return trial


def _remove_checkpoints(folder: Path) -> None:
    """Removes the checkpoints of a finished trial, which never continues."""
    for checkpoint in checkpoints(folder):
        checkpoint.unlink()


def _previous_trial(document: Path) -> Trial | None:
    """Reads an earlier result; None if it is missing or damaged."""
    with suppress(FseftError):
        return read_document(document, Trial)
    return None


def _score_adapter(config: TrialConfig, adaptation: Adaptation) -> Evaluation:
    """Predicts the test cases and scores them.

    Raises:
        FseftError: A test case is a training case.
    """
    test_split = config.data.test_split
    folder = adaptation.folder / "predictions"
    index = read_index(folder / INDEX)
    if index is not None and file_digest(adaptation.adapter) not in index.adapters:
        remove_folder(folder)  # predictions of a run that was overwritten
    adapter = open_adapter(adaptation.adapter, lambda _: config.request.model)
    request = PredictRequest((), folder, (adapter,), device=config.request.device)
    predict(replace(request, scans=test_split.scans, any_modality=True))  # of the same dataset
    scores = evaluate(
        match_predictions(folder, test_split.references),
        metrics=config.metrics,
        tolerance_mm=config.tolerance_mm,
        structures=config.data.structures,
        workers=1,
    )
    if scores.support:
        message = "is a training case, and cannot be scored"
        hint = "Exclude it from `cases`."
        raise FseftError(message, case=scores.support[0], hint=hint)
    write_evaluation(scores, folder)
    return scores


def _trial(config: TrialConfig, adaptation: Adaptation, scores: Evaluation) -> Trial:
    """Returns the costs and the scores of an adaptation."""
    values = {}
    for case, structures in scores.cases.items():
        values[case] = {name: score.metrics for name, score in structures.items()}
    support = read_document(adaptation.folder / "support.json", TrainingSet)
    return config.empty_trial.model_copy(
        update={
            "support": tuple(support.cases),
            "trained_parameters": adaptation.run.trained_parameters,
            "adapter_bytes": adaptation.adapter.stat().st_size,
            "seconds": adaptation.run.seconds,
            "mean": scores.mean,
            "scores": values,
        }
    )
