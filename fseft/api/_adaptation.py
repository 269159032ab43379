"""Adapts a foundation model."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fseft.api._resolve import as_dataset, as_model, as_selection, as_workspace
from fseft.errors import FseftError
from fseft.inference.adapter import Adapter
from fseft.model_zoo.catalogue import AUTO

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fseft.adaptation.request import AdaptRequest
    from fseft.adaptation.unlabelled_scans import UnlabelledScans
    from fseft.api._resolve import AdapterLike, DatasetLike, ModelLike, WorkspaceLike
    from fseft.experiment.callbacks import Callbacks
    from fseft.experiment.settings import ConfiguredMethod
    from fseft.model_zoo.adapter_file import OpenAdapter
    from fseft.model_zoo.catalogue import FoundationModel
    from fseft.parallel import Workers
    from fseft.plugin import Config
    from fseft.schemas import (
        ChannelMode,
        Dataset,
        Decision,
        Fingerprint,
        Millimetres,
        PartMode,
        Triple,
    )
    from fseft.training_config import TrainingConfig
    from fseft.workspace import Workspace

logger = logging.getLogger(__name__)


def adapt(
    dataset: DatasetLike,
    model: ModelLike = AUTO,
    method: str = AUTO,
    k: int | None = None,
    *,
    from_adapter: AdapterLike | None = None,
    unlabelled: str | Path | None = None,
    seed: int = 0,
    seeds: int = 1,
    config: Config | None = None,
    training: TrainingConfig | None = None,
    settings: Mapping[str, Any] | None = None,
    labels: Sequence[str] | None = None,
    cases: Sequence[str] | None = None,
    class_mapping: Mapping[str, str] | None = None,
    decoder: PartMode | None = None,
    bottleneck: PartMode | None = None,
    plan: str = "",
    spacing_mm: Millimetres | None = None,
    patch_size: Triple | None = None,
    minutes: float | None = None,
    fp16: bool = False,
    output: str | Path | None = None,
    memory_bytes: int | None = None,
    device: str = "auto",
    workers: Workers = 1,
    strict: bool = False,
    reader: str = "",
    ignore_label: int | None = None,
    annotated_slices: str | None = None,
    missing_label: str | None = None,
    channels: ChannelMode | None = None,
    overwrite: bool = False,
    reporters: Sequence[str] = (),
    cross_validate: bool = False,
    folds: int | None = None,
    workspace: WorkspaceLike = ".",
    callbacks: Callbacks | None = None,
    **more_settings: Any,
) -> Adapter:
    """Adapts a foundation model to the structures of a dataset with k labelled cases.

    Args:
        dataset: Folder of the dataset.
        model: Name of a foundation model; "none" for random weights, "auto" for the installed one
            that suits the dataset.
        method: Name of a method; "auto" to choose it on the training cases.
        k: Number of labelled cases to train on; None for all.
        from_adapter: Adapter to start from, file or folder of its run, with more cases or
            structures: its model, method, spacing and intensities are kept, and its rows of the
            head for structures that it knows. None to start from the model.
        unlabelled: Folder of scans without labels, which a mean teacher trains on as well: files in
            any format that `predict` reads, training cases left out. For methods that train on
            crops, not on cached features.
        seed: Seed of everything random.
        seeds: Number of trainings on the same cases, which share the time budget; their average is
            stored, or the best of them.
        config: The configuration of the method, instead of keywords.
        training: The training configuration, instead of keywords.
        settings: Settings of method and training as a mapping; keywords take precedence.
        labels: The structures to segment; None for all of the dataset.
        cases: Draw the k cases from these only; None for all labelled cases.
        class_mapping: Structure -> class of the model to start from, where the names differ.
        decoder: "frozen", "fine-tuned", "new" or "low-rank"; None for the default of the method.
        bottleneck: The same for the deepest level; None for "frozen".
        plan: Name of an alternative plan, made by `plan(..., name=plan)`.
        spacing_mm: Spacing along the axes of the model; None for the plan's.
        patch_size: Voxels of a patch along the same axes; None for the plan's.
        minutes: Training time budget; None for that of the plan, unless `epochs` is set.
        fp16: Store the adapter in half precision.
        output: Folder of the run; None for `runs/DATASET/MODEL/METHOD-kK-sSEED` in the workspace.
        memory_bytes: Memory that a training step may use; None for most of the device's memory.
        device: "auto", "cpu" or "cuda".
        workers: Processes that preprocess, or the address of a dask scheduler.
        strict: Refuse images without a label, labels without an image, and unused files.
        reader: Name of the reader; empty for the one that detects the layout.
        ignore_label: Value of voxels that do not count; None for what the dataset declares.
        annotated_slices: "auto" leaves out slices without any label, in cases that are drawn in
            single slices; "all" counts them as background. None: what a `Dataset` states, or all.
        missing_label: Meaning of a structure that a label file does not contain: "absent", or
            "unannotated", which leaves it out of the loss in this case. None: what a `Dataset`
            states, or absent.
        channels: How several channels reach a model that takes one: "first" leaves out the others,
            "mean" averages the normalised channels, "all" repeats the first layer over them and
            trains it. None: all, or mean for methods on frozen features.
        overwrite: Discard an existing run and start over.
        reporters: Names of additional reporters.
        cross_validate: Also score by cross-validation within the k cases, with one more training
            per fold. The result is `adapter.manifest.cross_validation`.
        folds: Number of folds; None for leave-one-out, or five folds of more than ten cases.
        workspace: Folder for fingerprints, caches, runs and models.
        callbacks: Observe the progress and the epochs.
        **more_settings: Settings of method and training, such as `rank=4` or `epochs=50`.

    Returns:
        The adapter. An interrupted run is resumed, and a finished one is not repeated.

    Raises:
        FseftError: Names, settings, structures or cases that do not fit together, or a broken case.

    Examples:
        >>> adapter = adapt("livers", "phantom-tiny", "lora", k=5, rank=4)  # doctest: +SKIP
    """
    from fseft.adaptation.request import AdaptRequest

    place = as_workspace(workspace)
    data = as_dataset(
        dataset,
        strict=strict,
        reader=reader,
        ignore_label=ignore_label,
        annotated_slices=annotated_slices,
        missing_label=missing_label,
    )
    origin, model, method = _start(from_adapter, model, method, place)
    structures = as_selection("labels", labels)
    pool = as_selection("cases", cases)
    entry, count, decisions = _with_defaults(
        model, k, data, place, structures, pool, device, workers, callbacks
    )
    methods = _methods(
        method,
        entry,
        _merged(config, training, settings, more_settings),
        decoder,
        bottleneck,
        origin,
    )
    request = AdaptRequest(
        method=methods[0],
        model=entry,
        dataset=data,
        k=count,
        seed=seed,
        labels=structures,
        cases=pool,
        mapping=class_mapping or {},
        plan_name=plan,
        spacing_mm=spacing_mm,
        patch_size=patch_size,
        minutes=minutes,
        half=fp16,
        output=Path(output) if output else None,
        requested_method=method,
        memory_bytes=memory_bytes,
        device=device,
        workers=workers,
        channels=channels,
        overwrite=overwrite,
        reporters=tuple(reporters),
        decisions=decisions,
        seeds=seeds,
        candidates=methods,
        origin=origin,
        unlabelled=_unlabelled(unlabelled, data),
    )
    return _adapt(request, place, callbacks, folds if cross_validate else 0)


def _adapt(
    request: AdaptRequest,
    workspace: Workspace,
    callbacks: Callbacks | None,
    folds: int | None,
) -> Adapter:
    """Chooses the method, trains, and cross-validates; with no folds, if they are 0."""
    from fseft.adaptation.configure import configure

    if request.origin is not None and folds != 0:
        cause = "the adapter to start from may be trained on the cases that are left out"
        raise FseftError(cause, hint="Cross-validate a run that starts from the model.")
    config = configure(request, workspace, callbacks)
    if folds != 0:
        from fseft.benchmarking.cross_validation import make_folds

        make_folds(config.support.cases, folds)  # raises before the training
    from fseft.adaptation.workflow import select_and_adapt

    result = select_and_adapt(config, workspace, callbacks)
    if result.already_done:
        logger.info("this run is finished; nothing to train")
    if folds != 0:
        from fseft.benchmarking.cross_validation import cross_validate

        result = cross_validate(config, result, workspace, folds=folds, callbacks=callbacks)
    return Adapter(result.adapter, workspace)


def _unlabelled(folder: str | Path | None, dataset: Dataset) -> UnlabelledScans | None:
    """Finds the scans without labels, if any, which have the channels of the dataset."""
    if folder is None:
        return None
    from fseft.adaptation.unlabelled_scans import UnlabelledScans
    from fseft.inference.scan_files import gather_scans
    from fseft.schemas import Case

    scans = gather_scans([Path(folder)], dataset.channels)
    cases = [Case(name=name, images=files) for name, files in scans.items()]
    return UnlabelledScans(Path(folder), tuple(cases))


def _merged(
    config: Config | None,
    training: TrainingConfig | None,
    settings: Mapping[str, Any] | None,
    keywords: Mapping[str, Any],
) -> dict[str, Any]:
    """Returns all settings of method and training; single ones take precedence."""
    return {
        **(config.model_dump(exclude_unset=True) if config else {}),
        **(training.model_dump(exclude_unset=True) if training else {}),
        **(settings or {}),
        **keywords,
    }


def _measure(
    dataset: Dataset, workspace: Workspace, workers: Workers, callbacks: Callbacks | None
) -> Fingerprint:
    """Measures a dataset, unless it was measured before."""
    from fseft.experiment.callbacks import Callbacks
    from fseft.planning.fingerprinting import fingerprint_dataset

    observer = callbacks or Callbacks()
    with observer.progress("measure", len(dataset.cases)) as advance:
        return fingerprint_dataset(dataset, workspace, workers=workers, progress=advance)


def _with_defaults(
    model: ModelLike,
    k: int | None,
    dataset: Dataset,
    workspace: Workspace,
    structures: tuple[str, ...],
    cases: tuple[str, ...],
    device: str,
    workers: Workers,
    callbacks: Callbacks | None,
) -> tuple[FoundationModel, int, tuple[Decision, ...]]:
    """Returns the model and the number of training cases, chosen where the user sets none."""
    from fseft.planning.recommendation import recommend_k, recommend_model

    if model != AUTO and k is not None:
        return as_model(model, workspace), k, ()
    fingerprint, decisions = _measure(dataset, workspace, workers, callbacks), []
    if model == AUTO:
        entry, decision = recommend_model(fingerprint, workspace, structures, device)
        decisions.append(decision)
    else:
        entry = as_model(model, workspace)
    if k is None:
        k, decision = recommend_k(fingerprint, cases)
        decisions.append(decision)
    return entry, k, tuple(decisions)


def _start(
    adapter: AdapterLike | None, model: ModelLike, method: str, workspace: Workspace
) -> tuple[OpenAdapter | None, ModelLike, str]:
    """Opens the adapter to start from, with its model and method where the user sets none."""
    from fseft.adaptation.continuation import open_origin

    if adapter is None:
        return None, model, method
    path = adapter.path if isinstance(adapter, Adapter) else Path(adapter)
    chosen = None if model == AUTO else as_model(model, workspace)
    origin = open_origin(path, workspace, chosen)
    manifest = origin.manifest
    return origin, chosen or manifest.model, manifest.method.name if method == AUTO else method


def _methods(
    name: str,
    model: FoundationModel,
    settings: Mapping[str, Any],
    decoder: PartMode | None,
    bottleneck: PartMode | None,
    origin: OpenAdapter | None,
) -> tuple[ConfiguredMethod, ...]:
    """Configures the method; with `auto`, all methods to choose from, the default first.

    An adapter to start from has its own method.
    """
    from fseft.adaptation.continuation import continued_method
    from fseft.adaptation.method_selection import candidate_methods
    from fseft.experiment.settings import configure_method

    if origin is not None:
        return (continued_method(origin, name, settings, decoder=decoder, bottleneck=bottleneck),)
    if name != AUTO:
        return (configure_method(name, settings, decoder=decoder, bottleneck=bottleneck),)
    if decoder or bottleneck:
        cause = "modes of decoder and bottleneck belong to one method, and the method is auto"
        raise FseftError(cause, hint="Choose a method, such as lora.")
    return tuple(candidate_methods(settings, model))
