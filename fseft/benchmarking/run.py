"""Compares methods and models on the same test cases."""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

from fseft.adaptation.request import AdaptRequest
from fseft.adaptation.selection import select_labels, select_support
from fseft.benchmarking.configure import LABELS, RESULT, check_request
from fseft.benchmarking.results import Benchmark, Trial, aggregate_trials
from fseft.benchmarking.tables import to_csv, to_markdown
from fseft.benchmarking.test_split import TestSplit, external, hold_out
from fseft.benchmarking.trial import BenchmarkData, TrialConfig, run_trial
from fseft.errors import FseftError, pluralise, summarise_exception
from fseft.experiment.callbacks import Callbacks
from fseft.experiment.settings import component_provenance
from fseft.metrics.fields import MetricColumn
from fseft.metrics.selection import (
    DEFAULT_BENCHMARK_METRICS,
    metric_provenance,
    select_metrics,
)
from fseft.model_zoo.adapter_file import versions
from fseft.parallel import default_workers, each_case
from fseft.planning.fingerprinting import TrainingLabels
from fseft.planning.plan import measure, plan_adaptation
from fseft.planning.preprocessing import preprocess
from fseft.registry import registry
from fseft.workspace import Workspace, exclusive_lock, write_document, write_text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from fseft.benchmarking.configure import BenchmarkRequest
    from fseft.parallel import Workers
    from fseft.schemas import Fingerprint, Plan

logger = logging.getLogger(__name__)

_MAX_NAMED_CASES = 5


def benchmark(
    request: BenchmarkRequest, workspace: Workspace, callbacks: Callbacks | None = None
) -> Benchmark:
    """Adapts every model by every method with every k and seed, and scores all on the same cases.

    Writes `benchmark.json`, `benchmark.csv` and `benchmark.md` to the output folder, and to `runs/`
    in it each run with its predictions and their `metrics.json`. Finished trials are not repeated.
    A method that is incompatible with a model or with the structures has a row with the reason;
    failed trials are in `failed`.

    Args:
        request: What to compare.
        workspace: Folder of fingerprints, preprocessed cases and models.
        callbacks: Observer of the progress and of each trial.

    Raises:
        FseftError: The request cannot run, or no trial succeeded.
    """
    callbacks = callbacks or Callbacks()
    check_request(request, workspace)
    if not request.metrics:
        request = replace(request, metrics=select_metrics(DEFAULT_BENCHMARK_METRICS))
    with exclusive_lock(request.output):
        data = _prepare(request, workspace, callbacks)
        result = _empty_result(request, data)
        document = request.output / f"{RESULT}.json"
        if not document.is_file():
            write_document(document, result)  # marks the folder, in case the benchmark is killed
        trials = _trial_configs(request, data, workspace)
        test_cases = _listed(list(data.test_split.scans))
        logger.info("%s, scored on %s", pluralise(len(trials), "trial"), test_cases)
        callbacks.on_start(request, 1)
        finished, failed = _run_trials(trials, request.workers, callbacks)
        _check_success(finished, failed)
        result = _with_trials(result, finished, failed)
        write_document(document, result)
        write_text(request.output / f"{RESULT}.csv", to_csv(result))
        write_text(request.output / f"{RESULT}.md", to_markdown(result))
    return result


def _listed(cases: Sequence[str]) -> str:
    """Returns the number of cases, with the names of the first."""
    names = ", ".join(cases[:_MAX_NAMED_CASES])
    more = ", ..." if len(cases) > _MAX_NAMED_CASES else ""
    return f"{pluralise(len(cases), 'case')}: {names}{more}"


def _empty_result(request: BenchmarkRequest, data: BenchmarkData) -> Benchmark:
    """Returns the document without trials."""
    provenances = [
        *(registry().provenance("method", name) for name in request.method_names),
        *metric_provenance(request.metrics),
        *(item for method in request.methods for item in component_provenance(method.training)),
    ]
    packages = {provenance.distribution: provenance.version for provenance in provenances}
    return Benchmark(
        dataset=request.dataset.name,
        models=tuple(model.name for model in request.models),
        structures=data.structures,
        test=tuple(data.test_split.scans),
        pool=data.test_split.pool,
        seeds=request.seeds,
        metrics=tuple(MetricColumn.of(metric) for metric in request.metrics),
        tolerance_mm=request.tolerance_mm,
        settings=request.settings,
        minutes=request.minutes,
        baseline=request.baseline,
        versions={**versions(), **packages},
    )


def _with_trials(
    result: Benchmark, trials: Sequence[Trial], failed: Mapping[str, Exception]
) -> Benchmark:
    """Returns the document with all trials, and the rows that average them."""
    rows = aggregate_trials(trials, result.seeds, result.metrics[0], result.baseline)
    messages = {name: _message(error) for name, error in failed.items()}
    update = {"rows": rows, "trials": tuple(trials), "failed": messages}
    return result.model_copy(update=update)


def _check_success(trials: Sequence[Trial], failed: Mapping[str, Exception]) -> None:
    """Raises an error if no trial has scores."""
    if not all(trial.incompatibility for trial in trials):
        return
    for error in failed.values():
        raise error
    raise FseftError(trials[0].incompatibility, hint="Choose other methods.")


def _prepare(
    request: BenchmarkRequest, workspace: Workspace, callbacks: Callbacks
) -> BenchmarkData:
    """Splits off the test cases, plans as the trials will, and preprocesses the training cases."""
    for model in request.models:
        fingerprint = measure(
            request.dataset, model, workspace, workers=request.workers, callbacks=callbacks
        )
    structures = tuple(select_labels(fingerprint, request.labels))
    test_split = _split(request, fingerprint, structures)
    planned = _plans(request, workspace, fingerprint, test_split, structures)
    plans = [plan for plan, _ in planned]
    warnings = _distinct_warnings(plans)
    for warning in (*warnings, *_doubts(request, test_split, plans[0].device)):
        logger.warning("%s", warning)
    for plan, cases in planned:
        preprocess(
            request.dataset,
            plan,
            workspace,
            workers=request.workers,
            cases=cases,
            callbacks=callbacks,
        )
    return BenchmarkData(test_split, structures, warnings)


def _distinct_warnings(plans: Iterable[Plan]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(warning for plan in plans for warning in plan.warnings))


def _plans(
    request: BenchmarkRequest,
    workspace: Workspace,
    fingerprint: Fingerprint,
    test_split: TestSplit,
    structures: Collection[str],
) -> list[tuple[Plan, tuple[str, ...]]]:
    """Returns the plans that the trials will make of their training cases, with these cases."""
    labelled = [case.name for case in fingerprint.cases if case.volumes_mm3]
    plans: dict[object, tuple[Plan, tuple[str, ...]]] = {}
    for trial in _adaptations(request, test_split):
        options = trial.plan_options
        key = (trial.model.name, trial.k, trial.seed, options.model_dump_json())
        if key in plans:
            continue
        cases = select_support(labelled, trial.k, trial.seed, trial.cases)
        labels = TrainingLabels(frozenset(cases), frozenset(structures))
        plan = plan_adaptation(
            request.dataset, trial.model, workspace, fingerprint, labels, options
        )
        plans[key] = (plan, cases)
    return [*plans.values()]


def _split(
    request: BenchmarkRequest, fingerprint: Fingerprint, structures: Sequence[str]
) -> TestSplit:
    if request.test_images is None or request.test_labels is None:
        return hold_out(
            request.dataset,
            fingerprint,
            cases=request.cases,
            test=request.test,
            k=max(request.ks),
            folder=request.output / LABELS,
        )
    return external(
        request.test_images,
        request.test_labels,
        dataset=request.dataset,
        fingerprint=fingerprint,
        structures=structures,
        cases=request.cases,
        k=max(request.ks),
    )


def _doubts(request: BenchmarkRequest, test_split: TestSplit, device: str) -> Iterator[str]:
    """Yields warnings about what limits the comparison."""
    if test_split.unmatched:
        yield f"not scored, as scan or label is missing: {_listed(test_split.unmatched)}"
    if request.processes > 1 and (request.minutes or device == "cuda"):
        yield (
            "trials run concurrently on this machine: their times, and what they reach within a "
            "time budget, depend on each other"
        )
    if request.minutes and any(method.spec.access == "black-box" for method in request.methods):
        yield (
            "only the first black-box method extracts features within its time budget; limit the "
            "epochs instead for a fair comparison"
        )


def _trial_configs(
    request: BenchmarkRequest, data: BenchmarkData, workspace: Workspace
) -> dict[str, TrialConfig]:
    """Returns all trials by name; each uses one process."""
    threads = max(1, default_workers() // request.processes) if request.processes > 1 else 0
    workspace = Workspace(workspace.root.absolute())
    trials = {}
    for adaptation in _adaptations(request, data.test_split):
        config = TrialConfig(
            adaptation, data, workspace, request.tolerance_mm, request.metrics, threads
        )
        trials[config.empty_trial.name] = config
    return trials


def _adaptations(request: BenchmarkRequest, test_split: TestSplit) -> Iterator[AdaptRequest]:
    """Yields the adaptation of each trial."""
    runs = Workspace(request.output.absolute())
    for model, k, seed, method in product(
        request.models, request.ks, request.seeds, request.methods
    ):
        yield AdaptRequest(
            dataset=request.dataset,
            model=model,
            method=method,
            k=k,
            seed=seed,
            labels=request.labels,
            cases=test_split.pool,
            mapping=request.mapping,
            minutes=request.minutes,
            output=runs.run(request.dataset.name, model.name, method.name, k, seed),
            memory_bytes=request.memory_bytes,
            device=request.device,
            overwrite=request.overwrite,
        )


def _run_trials(
    configs: Mapping[str, TrialConfig], workers: Workers, callbacks: Callbacks
) -> tuple[list[Trial], dict[str, Exception]]:
    """Returns the finished trials in their order, and the exception of each failed trial."""
    trials: dict[str, Trial] = {}
    failed: dict[str, Exception] = {}
    outcomes = each_case(run_trial, configs.items(), workers=workers, catch=Exception)
    with callbacks.progress("benchmark", len(configs)) as advance:
        for name, outcome in outcomes:
            if isinstance(outcome, FseftError):
                failed[name] = _without_trial_name(outcome, name)
                logger.warning("%s: %s", name, failed[name])
            elif isinstance(outcome, Exception):  # a bug, perhaps of a plugin: others may work
                failed[name] = outcome
                logger.error("%s: %s", name, _message(outcome), exc_info=outcome)
            else:
                trials[name] = outcome
                callbacks.on_trial_end(outcome)
            advance(name)
    return [trials[name] for name in configs if name in trials], failed


def _message(error: Exception) -> str:
    return str(error) if isinstance(error, FseftError) else summarise_exception(error)


def _without_trial_name(error: FseftError, name: str) -> FseftError:
    """Returns an error that does not name its trial as a case, as `each_case` does."""
    case = None if error.case == name else error.case
    return FseftError(error.cause, hint=error.hint, case=case, file=error.file)
