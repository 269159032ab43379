"""`fseft benchmark`: methods and models beside each other, on the same cases, k by k and seed by seed."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from itertools import product
from typing import TYPE_CHECKING

from fseft.adaptation.configure import AdaptRequest, select_labels, select_support
from fseft.benchmarking.results import Benchmark, Trial, aggregate_trials
from fseft.benchmarking.tables import to_csv, to_markdown
from fseft.benchmarking.test_split import TestSplit, external, hold_out
from fseft.benchmarking.trial import BenchmarkData, TrialConfig, run_trial
from fseft.errors import FseftError, did_you_mean, pluralise
from fseft.experiment.callbacks import Callbacks
from fseft.metrics.fields import MetricColumn
from fseft.metrics.selection import DEFAULT_BENCHMARK_METRICS, select_metrics
from fseft.model_zoo.adapter_file import versions
from fseft.parallel import default_workers, each_case
from fseft.planning.plan import make_plan
from fseft.planning.preprocessing import preprocess
from fseft.registry import registry
from fseft.workspace import Workspace, exclusive_lock, write_document, write_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from fseft.experiment.settings import ConfiguredMethod
    from fseft.model_zoo.catalogue import FoundationModel
    from fseft.parallel import Workers
    from fseft.plugin import MetricSpec
    from fseft.schemas import Dataset, Fingerprint

logger = logging.getLogger(__name__)

RESULT = "benchmark"
"""Name of the files with the result, without their suffix."""
LABELS = "labels"
"""Folder of label maps that were made of masks."""


@dataclass(frozen=True)
class BenchmarkRequest:
    """The methods and models to compare, on which data, and how; all names are resolved.

    Attributes:
        dataset: The dataset.
        output: Folder for everything.
        models: Each is adapted by each method.
        methods: With their configurations.
        ks: Numbers of cases to train on.
        seeds: Each draws its own support cases, the same for all methods.
        settings: The settings as the user wrote them, for the record.
        labels: The structures to segment; empty for all.
        cases: Use these cases only; empty for all.
        mapping: As for `AdaptRequest`.
        minutes: Training time budget of a trial; None for no limit.
        memory_bytes: Memory that a training step may use; None for most of the device's memory.
        device: "auto", "cpu" or "cuda".
        workers: Processes, one trial each, or the address of a dask scheduler.
        overwrite: Discard existing runs.
        test: Cases to score, or their number; see `hold_out`.
        test_images: A folder of scans to score instead.
        test_labels: The folder of their labels.
        tolerance_mm: As for `evaluate`.
        metrics: To compute; empty for Dice, NSD and HD95.
        baseline: The method that all are compared with; empty for the best of each k.
    """

    dataset: Dataset
    output: Path
    models: tuple[FoundationModel, ...]
    methods: tuple[ConfiguredMethod, ...]
    ks: tuple[int, ...]
    seeds: tuple[int, ...]
    settings: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    cases: tuple[str, ...] = ()
    mapping: Mapping[str, str] = field(default_factory=dict)
    minutes: float | None = None
    memory_bytes: int | None = None
    device: str = "auto"
    workers: Workers = 1
    overwrite: bool = False
    test: tuple[str, ...] = ()
    test_images: Path | None = None
    test_labels: Path | None = None
    tolerance_mm: float = 2.0
    metrics: tuple[MetricSpec, ...] = ()
    baseline: str = ""

    @property
    def method_names(self) -> tuple[str, ...]:
        """Names of the methods."""
        return tuple(method.name for method in self.methods)


def benchmark(
    request: BenchmarkRequest, store: Workspace, callbacks: Callbacks | None = None
) -> Benchmark:
    """Adapt every model by every method with every k and seed, and score all on the same cases.

    Leaves `benchmark.json`, `benchmark.csv` and `benchmark.md` in the output folder, and there below `runs/` each run
    as `adapt` leaves it, with its predictions and their `metrics.json`. What is done is not done again. A method that
    does not go with a model or with the structures has a row that says so; trials that failed are in `failed`.

    Raises:
        FseftError: Bad input, or not one trial could be done.
    """
    callbacks = callbacks or Callbacks()
    _check(request, store)
    if not request.metrics:
        request = replace(request, metrics=select_metrics(DEFAULT_BENCHMARK_METRICS))
    with exclusive_lock(request.output):
        ground = _prepare(request, store, callbacks)
        made = _document(request, ground)
        if not (
            request.output / f"{RESULT}.json"
        ).is_file():  # whose folder this is, for a run that is killed
            write_document(request.output / f"{RESULT}.json", made)
        tasks = _tasks(request, ground, store)
        scans = list(ground.held_out.scans)
        logger.info(
            "%s, scored on %s: %s",
            pluralise(len(tasks), "trial"),
            pluralise(len(scans), "case"),
            ", ".join(scans[:5]) + (", ..." if len(scans) > 5 else ""),
        )
        callbacks.on_start(request, 1)
        trials, failed = _all(tasks, request.workers, callbacks)
        if all(trial.incompatibility for trial in trials):
            raise (
                next(iter(failed.values()))
                if failed
                else FseftError(trials[0].incompatibility, hint="Take other methods.")
            )
        rows = aggregate_trials(trials, request.seeds, made.metrics[0], request.baseline)
        told = {name: str(error) for name, error in failed.items()}
        made = made.model_copy(update={"rows": rows, "trials": tuple(trials), "failed": told})
        write_document(request.output / f"{RESULT}.json", made)
        write_text(request.output / f"{RESULT}.csv", to_csv(made))
        write_text(request.output / f"{RESULT}.md", to_markdown(made))
    return made


def _document(request: BenchmarkRequest, ground: BenchmarkData) -> Benchmark:
    """What is known before any trial."""
    packages = [registry().provenance("method", method) for method in request.method_names]
    return Benchmark(
        dataset=request.dataset.name,
        models=tuple(model.name for model in request.models),
        structures=ground.structures,
        test=tuple(ground.held_out.scans),
        pool=ground.held_out.pool,
        seeds=request.seeds,
        tolerance_mm=request.tolerance_mm,
        settings=request.settings,
        minutes=request.minutes,
        baseline=request.baseline,
        metrics=tuple(MetricColumn.of(metric) for metric in request.metrics),
        versions={**versions(), **{one.distribution: one.version for one in packages}},
    )


def _check(request: BenchmarkRequest, store: Workspace) -> None:
    """Refuse at once what no trial can do."""
    for kind, entries in (("model", request.models), ("method", request.methods)):
        if not entries:
            raise FseftError(f"no {kind} to compare", hint=f"`fseft {kind}s` lists them.")
    if (request.test_images is None) != (request.test_labels is None):
        raise FseftError(
            "test images and test labels go together", hint="Give both folders, or none."
        )
    if request.test and request.test_images is not None:
        raise FseftError(
            "the test cases are chosen from the dataset, not from the test images",
            hint="Give one of them.",
        )
    if request.baseline and request.baseline not in request.method_names:
        cause = f"the baseline {request.baseline!r} is not among the methods"
        raise FseftError(cause, hint=did_you_mean(request.baseline, request.method_names))
    _check_folder(request.output, (store.root, request.dataset.folder))


def _check_folder(output: Path, taken: Sequence[Path]) -> None:
    """Nothing of somebody else may be replaced."""
    if output.exists() and not output.is_dir():
        raise FseftError("is no folder", file=output, hint="Give another --output.")
    held = {path.name for path in output.iterdir()} if output.is_dir() else set()
    ours = f"{RESULT}.json" in held or held <= {".lock", LABELS}
    if not ours or output.resolve() in [path.resolve() for path in taken]:
        raise FseftError(
            "holds other things than a benchmark", file=output, hint="Give another --output."
        )


def _prepare(request: BenchmarkRequest, store: Workspace, callbacks: Callbacks) -> BenchmarkData:
    """Measure, plan, hold out, and preprocess the cases that will be learned from."""
    plans = []
    for model in request.models:
        fingerprint, plan = make_plan(
            request.dataset,
            model,
            store,
            memory_bytes=request.memory_bytes,
            device=request.device,
            workers=request.workers,
            callbacks=callbacks,
            reuse=True,
        )
        plans.append(plan)
    warnings = tuple(dict.fromkeys(warning for plan in plans for warning in plan.warnings))
    structures = tuple(select_labels(fingerprint, request.labels))
    held_out = _held_out(request, fingerprint, structures)
    for warning in (*warnings, *_doubts(request, held_out, plans[0].device)):
        logger.warning("%s", warning)
    labelled = [case.name for case in fingerprint.cases if case.volumes_mm3]
    drawn = [
        select_support(labelled, max(request.ks), seed, held_out.pool) for seed in request.seeds
    ]
    cases = sorted(set().union(*drawn))
    for plan in plans:
        preprocess(
            request.dataset, plan, store, workers=request.workers, cases=cases, callbacks=callbacks
        )
    return BenchmarkData(held_out, structures, warnings)


def _held_out(
    request: BenchmarkRequest, fingerprint: Fingerprint, structures: Sequence[str]
) -> TestSplit:
    dataset, images, labels = request.dataset, request.test_images, request.test_labels
    cases, k = request.cases, max(request.ks)
    if images is None or labels is None:
        folder = request.output / LABELS
        return hold_out(dataset, fingerprint, cases=cases, test=request.test, k=k, folder=folder)
    return external(
        images,
        labels,
        dataset=dataset,
        fingerprint=fingerprint,
        structures=structures,
        cases=cases,
        k=k,
    )


def _doubts(request: BenchmarkRequest, held_out: TestSplit, device: str) -> Iterator[str]:
    """What makes a comparison doubtful."""
    if held_out.alone:
        named = ", ".join(held_out.alone[:5]) + (", ..." if len(held_out.alone) > 5 else "")
        yield f"not scored, as scan or label is missing: {named}"
    concurrent = isinstance(request.workers, int) and request.workers > 1
    if concurrent and (request.minutes or device == "cuda"):
        yield "trials share the machine: their times, and what a time budget allows, depend on each other"
    if request.minutes and any(method.spec.access == "black-box" for method in request.methods):
        yield (
            "the extraction of features counts in the time budget of the first black-box method only: "
            "rather limit the epochs"
        )


def _tasks(
    request: BenchmarkRequest, ground: BenchmarkData, store: Workspace
) -> dict[str, TrialConfig]:
    """All trials by name; in processes or on a cluster, a trial uses one process."""
    concurrent = isinstance(request.workers, int) and request.workers > 1
    threads = max(1, default_workers() // int(request.workers)) if concurrent else 0
    results, workspace = Workspace(request.output.absolute()), Workspace(store.root.absolute())
    tasks = {}
    for model, k, seed, method in product(
        request.models, request.ks, request.seeds, request.methods
    ):
        adaptation = AdaptRequest(
            dataset=request.dataset,
            model=model,
            method=method,
            k=k,
            seed=seed,
            labels=request.labels,
            cases=ground.held_out.pool,
            mapping=request.mapping,
            minutes=request.minutes,
            output=results.run(request.dataset.name, model.name, method.name, k, seed),
            memory_bytes=request.memory_bytes,
            device=request.device,
            overwrite=request.overwrite,
        )
        name = Trial(model=model.name, method=method.name, k=k, seed=seed).name
        tasks[name] = TrialConfig(
            adaptation, ground, workspace, request.tolerance_mm, request.metrics, threads
        )
    return tasks


def _all(
    tasks: dict[str, TrialConfig], workers: Workers, callbacks: Callbacks
) -> tuple[list[Trial], dict[str, FseftError]]:
    """What each trial gives, in their order, and what went wrong with others."""
    trials: dict[str, Trial] = {}
    failed: dict[str, FseftError] = {}
    with callbacks.progress("benchmark", len(tasks)) as advance:
        for name, outcome in each_case(run_trial, tasks.items(), workers=workers):
            if isinstance(outcome, FseftError):
                case = None if outcome.case == name else outcome.case
                failed[name] = FseftError(
                    outcome.cause, hint=outcome.hint, case=case, file=outcome.file
                )
                logger.warning("%s: %s", name, failed[name])
            else:
                trials[name] = outcome
                callbacks.on_trial_end(outcome)
            advance(name)
    return [trials[name] for name in tasks if name in trials], failed
