"""`fseft benchmark`: methods and models beside each other, on the same cases, k by k and seed by seed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from statistics import fmean
from typing import TYPE_CHECKING, Any

from fseft.documents import SupportSet
from fseft.errors import FseftError, MisfitError, counted, did_you_mean
from fseft.parallel import default_workers, each_case
from fseft.registry import registry
from fseft.steps.adapt import adapt
from fseft.steps.comparison import Benchmark, Trial, summarise, to_csv, to_markdown
from fseft.steps.datasets import read_dataset
from fseft.steps.devices import choose_device
from fseft.steps.evaluate import evaluate, write_evaluation
from fseft.steps.held_out import HeldOut, external, hold_out
from fseft.steps.jobs import AdaptRequest, Listener, choose_labels, choose_support
from fseft.steps.models import find_card
from fseft.steps.pairing import pair
from fseft.steps.plan import make_plan
from fseft.steps.predict import PredictRequest, predict
from fseft.steps.preprocess import preprocess
from fseft.steps.settings import split_settings
from fseft.store import Store, alone_in, digest, file_digest, read_document, write_document, write_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from fseft.documents import Dataset, Fingerprint
    from fseft.parallel import Workers
    from fseft.steps.adapt import Adaptation


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


@dataclass(frozen=True)
class Watcher:
    """What the caller wants to hear.

    Attributes:
        begin: Told what is scored, and how many trials there are.
        done: Told each trial as it ends, by its name.
        warn: Told what may disappoint.
        progress: As of `Listener`.
    """

    begin: Callable[[HeldOut, int], None]
    done: Callable[[str, Trial], None]
    warn: Callable[[str], None]
    progress: Callable[[int, str], AbstractContextManager[Callable[[str], None]]]


@dataclass(frozen=True)
class _Ground:
    """What all trials stand on: what is scored, the structures, and what the plans warn of."""

    held_out: HeldOut
    structures: tuple[str, ...]
    told: tuple[str, ...]


@dataclass(frozen=True)
class _Task:
    """A trial to do, in any process; `threads` are torch's there, 0 leaves them alone."""

    request: AdaptRequest
    ground: _Ground
    store: Store
    tolerance_mm: float
    threads: int


def benchmark(request: BenchmarkRequest, store: Store, watcher: Watcher) -> Benchmark:
    """Adapt every model by every method with every k and seed, and score all on the same cases.

    Leaves `benchmark.json`, `benchmark.csv` and `benchmark.md` in the output folder, and there below `runs/` each run
    as `adapt` leaves it, with its predictions and their `metrics.json`. What is done is not done again.

    Raises:
        FseftError: Bad input, or a trial failed; the others are done first. A method that does not go with a model or
            with the structures is no failure but a row that says so.
    """
    with alone_in(request.output):
        _check(request, store)
        dataset = read_dataset(request.common.folder, strict=request.common.strict)
        ground = _prepare(request, dataset, store, watcher)
        tasks = _tasks(request, dataset.name, ground, store, watcher)
        watcher.begin(ground.held_out, len(tasks))
        trials, failed = _all(tasks, request.common.workers, watcher)
        made = Benchmark(
            dataset=dataset.name,
            structures=ground.structures,
            test=tuple(ground.held_out.scans),
            tolerance_mm=request.tolerance_mm,
            settings=request.common.settings,
            rows=summarise(trials),
            trials=tuple(trials),
        )
        write_document(request.output / "benchmark.json", made)
        write_text(request.output / "benchmark.csv", to_csv(made))
        write_text(request.output / "benchmark.md", to_markdown(made))
    if failed:
        first = failed[0]
        cause = f"{len(failed)} of {counted(len(tasks), 'trial')} failed; the first: {first.cause}"
        raise FseftError(cause, case=first.case, file=first.file, hint=f"{first.hint} Run again: the others are kept.")
    return made


def _check(request: BenchmarkRequest, store: Store) -> None:
    """Refuse at once what no trial can do."""
    if (request.test_images is None) != (request.test_labels is None):
        raise FseftError("--test-images and --test-labels go together", hint="Give both, or none.")
    if request.test and request.test_images is not None:
        raise FseftError("--test chooses among the dataset's cases, not in --test-images", hint="Give one of them.")
    for model in request.models:
        find_card(model, store)
    for method in request.methods:
        split_settings(registry().method(method), _settings(request, method))


def _settings(request: BenchmarkRequest, method: str) -> tuple[str, ...]:
    """Those of all methods, then its own: `METHOD.key=value`.

    Raises:
        FseftError: One is of a method that takes no part.
    """
    shared: list[str] = []
    own: list[str] = []
    for setting in request.common.settings:
        key, equals, value = setting.partition("=")
        name, _, key = key.rpartition(".")
        if name and name not in request.methods:
            raise FseftError(
                f"--set {setting}: no method {name!r} takes part", hint=did_you_mean(name, request.methods)
            )
        if name in ("", method):
            (own if name else shared).append(f"{key}{equals}{value}")
    return (*shared, *own)


def _prepare(request: BenchmarkRequest, dataset: Dataset, store: Store, watcher: Watcher) -> _Ground:
    """Measure, plan, hold out, and preprocess the cases that will be learned from."""
    common, told = request.common, []
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
        told += [warning for warning in plan.warnings if warning not in told]
        held_out = _held_out(request, dataset, fingerprint)
        labelled = [case.name for case in fingerprint.cases if case.volumes_mm3]
        drawn = [choose_support(labelled, max(request.ks), seed, held_out.pool) for seed in request.seeds]
        cases = sorted(set().union(*drawn))
        with watcher.progress(len(cases), "preprocess") as done:
            preprocess(common.folder, plan, store, workers=common.workers, cases=cases, progress=done)
    for warning in told:
        watcher.warn(warning)
    return _Ground(held_out, tuple(choose_labels(fingerprint, common.labels)), tuple(told))


def _held_out(request: BenchmarkRequest, dataset: Dataset, fingerprint: Fingerprint) -> HeldOut:
    images, labels, cases = request.test_images, request.test_labels, request.common.cases
    if images is not None and labels is not None:
        return external(images, labels, channels=len(dataset.channels), pool=cases)
    folder = request.output / "labels"
    return hold_out(dataset, fingerprint, cases=cases, test=request.test, largest_k=max(request.ks), folder=folder)


def _tasks(
    request: BenchmarkRequest, dataset: str, ground: _Ground, store: Store, watcher: Watcher
) -> dict[str, _Task]:
    """All trials by name; in processes or on a cluster, a trial uses one process."""
    common = request.common
    workers, threads = common.workers, 0
    if isinstance(workers, int) and workers > 1:
        threads = max(1, default_workers() // workers)
        if choose_device(common.device) == "cuda":
            watcher.warn(f"{workers} trials share the GPU at a time; their times say little")
    places, here = Store(request.output.absolute()), Store(store.root.absolute())
    tasks = {}
    for model, k, seed, method in product(request.models, request.ks, request.seeds, request.methods):
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
        name = f"{model}, {method}, k = {k}, seed {seed}"
        tasks[name] = _Task(adaptation, ground, here, request.tolerance_mm, threads)
    return tasks


def _all(tasks: dict[str, _Task], workers: Workers, watcher: Watcher) -> tuple[list[Trial], list[FseftError]]:
    """What each trial gives, in their order, and what went wrong with others."""
    trials: dict[str, Trial] = {}
    failed = []
    with watcher.progress(len(tasks), "benchmark") as advance:
        for name, outcome in each_case(_trial, tasks.items(), workers=workers):
            if isinstance(outcome, FseftError):
                failed.append(outcome)
                watcher.warn(str(outcome))
            else:
                trials[name] = outcome
                watcher.done(name, outcome)
            advance(name)
    return [trials[name] for name in tasks if name in trials], failed


def _trial(task: _Task) -> Trial:
    """Adapt, predict, evaluate."""
    if task.threads:
        import torch

        torch.set_num_threads(task.threads)
    request = task.request
    warnings: list[str] = []
    fresh = Trial(model=request.model, method=request.method, k=request.k, seed=request.seed)
    try:
        adaptation = adapt(request, task.store, Listener(warn=warnings.append))
    except MisfitError as error:
        return fresh.model_copy(update={"misfit": error.cause})
    key = digest(file_digest(adaptation.adapter), task.ground.held_out.key, task.ground.structures, task.tolerance_mm)
    place = adaptation.folder / "trial.json"
    if place.is_file() and (known := read_document(place, Trial)).key == key:
        return known
    new = tuple(warning for warning in warnings if warning not in task.ground.told)
    trial = fresh.model_copy(update={"key": key, "warnings": new, **_measured(task, adaptation)})
    write_document(place, trial)
    return trial


def _measured(task: _Task, made: Adaptation) -> dict[str, Any]:
    """What a trial cost, and how well its adapter segments the held-out cases."""
    held_out, folder = task.ground.held_out, made.folder / "predictions"
    predict(PredictRequest((), folder, (made.adapter,), device=task.request.device, scans=held_out.scans), task.store)
    scores = evaluate(
        pair(folder, held_out.references), tolerance_mm=task.tolerance_mm, only=task.ground.structures, workers=1
    )
    if scores.support:
        raise FseftError(
            "is learned from and scored", case=scores.support[0], hint="Leave it out of --cases or of the test."
        )
    write_evaluation(scores, folder)
    by_case = {
        case: [score.dice for score in structures.values() if score.dice is not None]
        for case, structures in scores.cases.items()
    }
    return {
        "support": tuple(read_document(made.folder / "support.json", SupportSet).cases),
        "trained_parameters": made.run.trained_parameters,
        "adapter_bytes": made.adapter.stat().st_size,
        "seconds": made.run.seconds,
        "dice": scores.mean_dice,
        "nsd": scores.mean_nsd,
        "hd95_mm": scores.mean_hd95_mm,
        "cases": {case: fmean(found) for case, found in by_case.items() if found},
    }
