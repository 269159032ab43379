"""`fseft benchmark`: methods and models beside each other, on the same cases, k by k and seed by seed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

from fseft.adaptation.configure import AdaptRequest, select_labels, select_support
from fseft.benchmarking.results import Benchmark, Trial, aggregate_trials
from fseft.benchmarking.tables import to_csv, to_markdown
from fseft.benchmarking.test_split import TestSplit, external, hold_out
from fseft.benchmarking.trial import BenchmarkData, TrialConfig, run_trial
from fseft.errors import FseftError, did_you_mean
from fseft.experiment.settings import split_settings
from fseft.metrics.fields import MetricColumn
from fseft.metrics.selection import DEFAULT_BENCHMARK_METRICS, select_metrics
from fseft.model_zoo.adapter_file import versions
from fseft.model_zoo.catalogue import find_model_card
from fseft.parallel import default_workers, each_case
from fseft.planning.dataset_reading import read_dataset
from fseft.planning.plan import make_plan
from fseft.planning.preprocessing import preprocess
from fseft.registry import registry
from fseft.workspace import Workspace, exclusive_lock, write_document, write_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from fseft.parallel import Workers
    from fseft.plugin import MetricSpec
    from fseft.schemas import Dataset, Fingerprint

RESULT = "benchmark"
"""Name of the files with the result, without their suffix."""
LABELS = "labels"
"""Folder of label maps that were made of masks."""


@dataclass(frozen=True)
class BenchmarkRequest:
    """What `fseft benchmark` was asked for.

    Attributes:
        common: What is the same for all trials; model, method, k, seed, settings and output become each trial's.
        output: Folder for everything.
        models: Each with each method.
        methods: By name.
        ks: Numbers of cases to learn from.
        seeds: Each draws its own cases, the same for all methods.
        test: Cases to score, or how many; see `hold_out`.
        test_images: A folder of scans to score instead.
        test_labels: Their labels.
        tolerance_mm: As for `evaluate`.
        metrics: To compute; by default Dice, NSD and HD95.
        baseline: The method that all are compared with; empty: the best of each k.
    """

    common: AdaptRequest
    output: Path
    models: tuple[str, ...]
    methods: tuple[str, ...]
    ks: tuple[int, ...]
    seeds: tuple[int, ...]
    test: tuple[str, ...] = ()
    test_images: Path | None = None
    test_labels: Path | None = None
    tolerance_mm: float = 2.0
    metrics: tuple[MetricSpec, ...] = ()
    baseline: str = ""


@dataclass(frozen=True)
class Watcher:
    """What the caller wants to hear.

    Attributes:
        begin: Told what is scored, and how many trials there are.
        done: Told each trial as it ends.
        warn: Told what may disappoint.
        progress: As of `Listener`.
    """

    begin: Callable[[TestSplit, int], None]
    done: Callable[[Trial], None]
    warn: Callable[[str], None]
    progress: Callable[[int, str], AbstractContextManager[Callable[[str], None]]]


def benchmark(request: BenchmarkRequest, store: Workspace, watcher: Watcher) -> Benchmark:
    """Adapt every model by every method with every k and seed, and score all on the same cases.

    Leaves `benchmark.json`, `benchmark.csv` and `benchmark.md` in the output folder, and there below `runs/` each run
    as `adapt` leaves it, with its predictions and their `metrics.json`. What is done is not done again. A method that
    does not go with a model or with the structures has a row that says so; trials that failed are in `failed`.

    Raises:
        FseftError: Bad input, or not one trial could be done.
    """
    _check(request, store)
    if not request.metrics:
        request = replace(request, metrics=select_metrics(DEFAULT_BENCHMARK_METRICS))
    with exclusive_lock(request.output):
        dataset = read_dataset(request.common.folder, strict=request.common.strict)
        ground = _prepare(request, dataset, store, watcher)
        made = _document(request, dataset, ground)
        if not (
            request.output / f"{RESULT}.json"
        ).is_file():  # whose folder this is, for a run that is killed
            write_document(request.output / f"{RESULT}.json", made)
        tasks = _tasks(request, dataset.name, ground, store)
        watcher.begin(ground.held_out, len(tasks))
        trials, failed = _all(tasks, request.common.workers, watcher)
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


def _document(request: BenchmarkRequest, dataset: Dataset, ground: BenchmarkData) -> Benchmark:
    """What is known before any trial."""
    packages = [registry().provenance("method", method) for method in request.methods]
    return Benchmark(
        dataset=dataset.name,
        models=request.models,
        structures=ground.structures,
        test=tuple(ground.held_out.scans),
        pool=ground.held_out.pool,
        seeds=request.seeds,
        tolerance_mm=request.tolerance_mm,
        settings=request.common.settings,
        minutes=request.common.minutes,
        baseline=request.baseline,
        metrics=tuple(MetricColumn.of(metric) for metric in request.metrics),
        versions={**versions(), **{one.distribution: one.version for one in packages}},
    )


def _check(request: BenchmarkRequest, store: Workspace) -> None:
    """Refuse at once what no trial can do."""
    for what, given in (("model", request.models), ("method", request.methods)):
        if not given:
            raise FseftError(f"--{what} is empty", hint=f"`fseft {what}s` lists what there is.")
    if (request.test_images is None) != (request.test_labels is None):
        raise FseftError("--test-images and --test-labels go together", hint="Give both, or none.")
    if request.test and request.test_images is not None:
        raise FseftError(
            "--test chooses among the dataset's cases, not in --test-images",
            hint="Give one of them.",
        )
    if request.baseline and request.baseline not in request.methods:
        cause = f"the baseline {request.baseline!r} is not among the methods"
        raise FseftError(cause, hint=did_you_mean(request.baseline, request.methods))
    for model in request.models:
        find_model_card(model, store)
    for method in request.methods:
        spec = registry().method(method)
        try:
            split_settings(spec, _settings(request, method))
        except FseftError as error:
            alone = (
                " For one method alone write METHOD.key=value." if len(request.methods) > 1 else ""
            )
            raise FseftError(error.cause, hint=f"{error.hint}{alone}") from error
    _check_folder(request.output, (store.root, request.common.folder))


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


def _settings(request: BenchmarkRequest, method: str) -> tuple[str, ...]:
    """Those of all methods, then its own: `METHOD.key=value`.

    Raises:
        FseftError: One is of a method that takes no part.
    """
    shared: list[str] = []
    own: list[str] = []
    for setting in request.common.settings:
        key, equals, value = setting.partition("=")
        name, dot, key = key.rpartition(".")
        if dot and name not in request.methods:
            cause = f"--set {setting}: no method {name!r} takes part"
            raise FseftError(cause, hint=did_you_mean(name, request.methods))
        if name in ("", method):
            (own if dot else shared).append(f"{key}{equals}{value}")
    return (*shared, *own)


def _prepare(
    request: BenchmarkRequest, dataset: Dataset, store: Workspace, watcher: Watcher
) -> BenchmarkData:
    """Measure, plan, hold out, and preprocess the cases that will be learned from."""
    common, plans = request.common, []
    for model in request.models:
        with watcher.progress(len(dataset.cases), "measure") as done:
            fingerprint, plan = make_plan(
                common.folder,
                model,
                store,
                memory_bytes=common.memory_bytes,
                device=common.device,
                workers=common.workers,
                progress=done,
                reuse=True,
            )
        plans.append(plan)
    told = tuple(dict.fromkeys(warning for plan in plans for warning in plan.warnings))
    structures = tuple(select_labels(fingerprint, common.labels))
    held_out = _held_out(request, dataset, fingerprint, structures)
    for warning in (*told, *_doubts(request, held_out, plans[0].device)):
        watcher.warn(warning)
    labelled = [case.name for case in fingerprint.cases if case.volumes_mm3]
    drawn = [
        select_support(labelled, max(request.ks), seed, held_out.pool) for seed in request.seeds
    ]
    cases = sorted(set().union(*drawn))
    for plan in plans:
        with watcher.progress(len(cases), "preprocess") as done:
            preprocess(
                common.folder, plan, store, workers=common.workers, cases=cases, progress=done
            )
    return BenchmarkData(held_out, structures, told)


def _held_out(
    request: BenchmarkRequest, dataset: Dataset, fingerprint: Fingerprint, structures: Sequence[str]
) -> TestSplit:
    images, labels, cases, k = (
        request.test_images,
        request.test_labels,
        request.common.cases,
        max(request.ks),
    )
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
    specs = [registry().method(method) for method in request.methods]
    together = isinstance(request.common.workers, int) and request.common.workers > 1
    if together and (request.common.minutes or device == "cuda"):
        yield "trials share the machine: their times, and what --minutes allows, depend on each other"
    if request.common.minutes and any(spec.access == "black-box" for spec in specs):
        yield "the pass for features counts in --minutes of the first black-box method alone: rather --set epochs"


def _tasks(
    request: BenchmarkRequest, dataset: str, ground: BenchmarkData, store: Workspace
) -> dict[str, TrialConfig]:
    """All trials by name; in processes or on a cluster, a trial uses one process."""
    common = request.common
    together = isinstance(common.workers, int) and common.workers > 1
    threads = max(1, default_workers() // int(common.workers)) if together else 0
    places, here = Workspace(request.output.absolute()), Workspace(store.root.absolute())
    tasks = {}
    for model, k, seed, method in product(
        request.models, request.ks, request.seeds, request.methods
    ):
        adaptation = replace(
            common,
            folder=common.folder.absolute(),
            model=model,
            method=method,
            k=k,
            seed=seed,
            settings=_settings(request, method),
            cases=ground.held_out.pool,
            output=places.run(dataset, model, method, k, seed),
            workers=1,
        )
        name = Trial(model=model, method=method, k=k, seed=seed).name
        tasks[name] = TrialConfig(
            adaptation, ground, here, request.tolerance_mm, request.metrics, threads
        )
    return tasks


def _all(
    tasks: dict[str, TrialConfig], workers: Workers, watcher: Watcher
) -> tuple[list[Trial], dict[str, FseftError]]:
    """What each trial gives, in their order, and what went wrong with others."""
    trials: dict[str, Trial] = {}
    failed: dict[str, FseftError] = {}
    with watcher.progress(len(tasks), "benchmark") as advance:
        for name, outcome in each_case(run_trial, tasks.items(), workers=workers):
            if isinstance(outcome, FseftError):
                case = None if outcome.case == name else outcome.case
                failed[name] = FseftError(
                    outcome.cause, hint=outcome.hint, case=case, file=outcome.file
                )
                watcher.warn(f"{name}: {failed[name]}")
            else:
                trials[name] = outcome
                watcher.done(outcome)
            advance(name)
    return [trials[name] for name in tasks if name in trials], failed
