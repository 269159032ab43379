"""One trial of a benchmark: adapt, predict, evaluate."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass
from shutil import rmtree
from typing import TYPE_CHECKING, Any

from fseft.adaptation.configure import configure
from fseft.adaptation.run import adapt
from fseft.benchmarking.results import Trial
from fseft.errors import FseftError, IncompatibleError
from fseft.evaluation.matching import match_predictions
from fseft.evaluation.run import evaluate, write_evaluation
from fseft.inference.index import INDEX, read_index
from fseft.inference.run import PredictRequest, predict
from fseft.logs import captured_records
from fseft.schemas import SupportSet
from fseft.workspace import digest, file_digest, read_document, write_document

if TYPE_CHECKING:
    from pathlib import Path

    from fseft.adaptation.configure import AdaptRequest
    from fseft.adaptation.run import Adaptation
    from fseft.benchmarking.test_split import TestSplit
    from fseft.plugin import MetricSpec
    from fseft.workspace import Workspace


@dataclass(frozen=True)
class BenchmarkData:
    """What all trials stand on: what is scored, the structures, and what the plans warn of."""

    held_out: TestSplit
    structures: tuple[str, ...]
    told: tuple[str, ...]


@dataclass(frozen=True)
class TrialConfig:
    """A trial to do, in any process; `threads` are torch's there, 0 leaves them alone."""

    request: AdaptRequest
    ground: BenchmarkData
    store: Workspace
    tolerance_mm: float
    metrics: tuple[MetricSpec, ...]
    threads: int


def run_trial(task: TrialConfig) -> Trial:
    """Adapt, predict, evaluate; what is there already, made in the same way of the same files, stays.

    Raises:
        FseftError: One of them fails. A method that does not go with model or structures gives a trial that says so.
    """
    if task.threads:
        import torch

        torch.set_num_threads(task.threads)
    request = task.request
    fresh = Trial(
        model=request.model.name, method=request.method.name, k=request.k, seed=request.seed
    )
    with captured_records() as records:
        try:
            adaptation = adapt(configure(request, task.store), task.store)
        except IncompatibleError as error:
            return fresh.model_copy(update={"incompatibility": error.cause})
    warnings = [record.msg for record in records if record.levelno >= logging.WARNING]
    key = digest(
        file_digest(adaptation.adapter),
        task.ground.held_out.key,
        task.ground.structures,
        task.tolerance_mm,
        [metric.key for metric in task.metrics],
    )
    place = adaptation.folder / "trial.json"
    if not request.overwrite and (known := _earlier(place)) is not None and known.key == key:
        return known
    new = tuple(warning for warning in warnings if warning not in task.ground.told)
    trial = fresh.model_copy(update={"key": key, "warnings": new, **_measured(task, adaptation)})
    write_document(place, trial)
    return trial


def _earlier(place: Path) -> Trial | None:
    """What was written; None where it is not there or damaged, as it is soon made again."""
    with suppress(FseftError):
        return read_document(place, Trial)
    return None


def _measured(task: TrialConfig, made: Adaptation) -> dict[str, Any]:
    """What a trial cost, and how well its adapter segments the held-out cases."""
    held_out, folder = task.ground.held_out, made.folder / "predictions"
    earlier = read_index(folder / INDEX)
    if earlier is not None and file_digest(made.adapter) not in earlier.adapters:
        rmtree(folder)  # of a run that was overwritten, perhaps for other structures
    predict(
        PredictRequest(
            (), folder, (made.adapter,), device=task.request.device, scans=held_out.scans
        ),
        task.store,
    )
    scores = evaluate(
        match_predictions(folder, held_out.references),
        tolerance_mm=task.tolerance_mm,
        metrics=task.metrics,
        structures=task.ground.structures,
        workers=1,
    )
    if scores.support:
        raise FseftError(
            "was learned from", case=scores.support[0], hint="Leave it out of --cases."
        )
    write_evaluation(scores, folder)
    return {
        "support": tuple(read_document(made.folder / "support.json", SupportSet).cases),
        "trained_parameters": made.run.trained_parameters,
        "adapter_bytes": made.adapter.stat().st_size,
        "seconds": made.run.seconds,
        "mean": scores.mean,
        "scores": {
            case: {name: score.metrics for name, score in structures.items()}
            for case, structures in scores.cases.items()
        },
    }
