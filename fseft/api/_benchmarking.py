"""Compares methods and models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fseft.api._resolve import as_dataset, as_model, as_selection, as_workspace
from fseft.errors import FseftError, did_you_mean
from fseft.model_zoo.catalogue import FoundationModel
from fseft.training_config import COMPONENT_GROUPS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fseft.api._resolve import DatasetLike, ModelLike, WorkspaceLike
    from fseft.benchmarking.results import Benchmark
    from fseft.experiment.callbacks import Callbacks
    from fseft.experiment.settings import ConfiguredMethod
    from fseft.parallel import Workers
    from fseft.plugin import MetricSpec


def benchmark(
    dataset: DatasetLike,
    models: ModelLike | Sequence[ModelLike],
    methods: str | Sequence[str],
    output: str | Path,
    *,
    ks: Sequence[int] = (5,),
    seeds: Sequence[int] = (0,),
    settings: Mapping[str, Any] | None = None,
    labels: Sequence[str] | None = None,
    cases: Sequence[str] | None = None,
    test: Sequence[str] | None = None,
    test_images: str | Path | None = None,
    test_labels: str | Path | None = None,
    class_mapping: Mapping[str, str] | None = None,
    minutes: float | None = None,
    metrics: Sequence[str] | None = None,
    baseline: str = "",
    tolerance_mm: float = 2.0,
    memory_bytes: int | None = None,
    device: str = "auto",
    workers: Workers = 1,
    strict: bool = False,
    reader: str = "",
    ignore_label: int | None = None,
    annotated_slices: str | None = None,
    missing_label: str | None = None,
    overwrite: bool = False,
    workspace: WorkspaceLike = ".",
    callbacks: Callbacks | None = None,
) -> Benchmark:
    """Compares methods and models with every k and seed, scored on the same unseen cases.

    Args:
        dataset: Folder of the dataset.
        models: Names of foundation models.
        methods: Names of methods.
        output: Folder for tables, runs and predictions.
        ks: Numbers of cases to train on.
        seeds: Each draws its own training cases, the same for all methods.
        settings: Settings of all methods, or of one as `METHOD.key`.
        labels: The structures to segment; None for all.
        cases: Use these cases only; None for all.
        test: Labelled cases to score and never to train on: names, or their number; None
            for 20, or half of fewer than 40.
        test_images: A folder of scans to score instead.
        test_labels: The folder of their labels.
        class_mapping: Structure -> class of the model, as for `adapt`.
        minutes: Training time budget of a trial; None for no limit.
        metrics: Names of the metrics; None for Dice, NSD and HD95. Rows are compared by the first.
        baseline: The method that all are compared with; empty for the best of each k.
        tolerance_mm: Surface deviation that the normalised surface Dice accepts.
        memory_bytes: Memory that a training step may use; None for most of the device's memory.
        device: "auto", "cpu" or "cuda".
        workers: Processes, one trial each, or the address of a dask scheduler.
        strict: Refuse images without a label, labels without an image, and unused files.
        reader: Name of the reader; empty for the one that detects the layout.
        ignore_label: Value of voxels that do not count; None for what the dataset declares.
        annotated_slices: "auto" leaves out slices without any label, in cases that are drawn in
            single slices; "all" counts them as background. None: what a `Dataset` states, or all.
        missing_label: Meaning of a structure that a label file does not contain: "absent", or
            "unannotated", which leaves it out of the loss in this case. None: what a `Dataset`
            states, or absent.
        overwrite: Discard existing runs and start over.
        workspace: Folder for fingerprints, caches and models.
        callbacks: Observe the progress and the trials.

    Returns:
        The benchmark, as in `benchmark.json`; trials that failed are in `failed`.

    Raises:
        FseftError: Names, settings or cases that do not fit together, or no trial succeeds.
    """
    from fseft.benchmarking.configure import BenchmarkRequest
    from fseft.benchmarking.run import benchmark as run_benchmark

    place = as_workspace(workspace)
    names = (methods,) if isinstance(methods, str) else as_selection("methods", methods)
    if isinstance(models, str | FoundationModel):
        models = (models,)
    request = BenchmarkRequest(
        models=tuple(as_model(model, place) for model in as_selection("models", models)),
        methods=_configured_methods(names, settings or {}),
        dataset=as_dataset(
            dataset,
            strict=strict,
            reader=reader,
            ignore_label=ignore_label,
            annotated_slices=annotated_slices,
            missing_label=missing_label,
        ),
        output=Path(output),
        ks=tuple(ks),
        seeds=tuple(seeds),
        settings=tuple(f"{key}={value}" for key, value in (settings or {}).items()),
        labels=as_selection("labels", labels),
        cases=as_selection("cases", cases),
        mapping=class_mapping or {},
        minutes=minutes,
        memory_bytes=memory_bytes,
        device=device,
        workers=workers,
        overwrite=overwrite,
        test=as_selection("test", test),
        test_images=None if test_images is None else Path(test_images),
        test_labels=None if test_labels is None else Path(test_labels),
        tolerance_mm=tolerance_mm,
        baseline=baseline,
        metrics=_selected_metrics(metrics),
    )
    return run_benchmark(request, place, callbacks)


def _selected_metrics(names: Sequence[str] | None) -> tuple[MetricSpec, ...]:
    """Resolves metrics; empty for the default ones."""
    from fseft.metrics.selection import select_metrics

    selected = as_selection("metrics", names)
    return select_metrics(selected) if selected else ()


def _configured_methods(
    names: Sequence[str], settings: Mapping[str, Any]
) -> tuple[ConfiguredMethod, ...]:
    """Resolves methods with the shared settings and their own, written as `METHOD.key`."""
    from fseft.experiment.settings import configure_method

    shared: dict[str, Any] = {}
    of_method: dict[str, dict[str, Any]] = {name: {} for name in names}
    for key, value in settings.items():
        name, dot, own_key = key.partition(".")
        if not dot or name in COMPONENT_GROUPS:
            shared[key] = value
            continue
        if name not in of_method:
            cause = f"setting {key}: the method {name!r} is not compared"
            raise FseftError(cause, hint=did_you_mean(name, names))
        of_method[name][own_key] = value
    try:
        return tuple(configure_method(name, {**shared, **of_method[name]}) for name in names)
    except FseftError as error:
        single = " For one method alone write METHOD.key." if len(names) > 1 else ""
        raise FseftError(error.cause, hint=f"{error.hint}{single}") from error
