"""Adapts a foundation model."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fseft.api._resolve import as_dataset, as_model, as_selection, as_workspace
from fseft.inference.adapter import Adapter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fseft.api._resolve import DatasetLike, ModelLike, WorkspaceLike
    from fseft.experiment.callbacks import Callbacks
    from fseft.parallel import Workers
    from fseft.plugin import Config
    from fseft.schemas import Millimetres, PartMode, Triple
    from fseft.training_config import TrainingConfig

logger = logging.getLogger(__name__)


def adapt(
    dataset: DatasetLike,
    model: ModelLike,
    method: str,
    k: int,
    *,
    seed: int = 0,
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
        model: Name of a foundation model; "none" for random weights.
        method: Name of a method.
        k: Number of labelled cases to train on.
        seed: Seed of everything random.
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
    from fseft.adaptation.configure import configure
    from fseft.adaptation.request import AdaptRequest
    from fseft.adaptation.run import adapt as run_adaptation
    from fseft.benchmarking.cross_validation import cross_validate as run_folds
    from fseft.benchmarking.cross_validation import make_folds
    from fseft.experiment.settings import configure_method

    place = as_workspace(workspace)
    merged = {
        **(config.model_dump(exclude_unset=True) if config else {}),
        **(training.model_dump(exclude_unset=True) if training else {}),
        **(settings or {}),
        **more_settings,
    }
    request = AdaptRequest(
        method=configure_method(method, merged, decoder=decoder, bottleneck=bottleneck),
        model=as_model(model, place),
        dataset=as_dataset(dataset, strict=strict, reader=reader),
        k=k,
        seed=seed,
        labels=as_selection("labels", labels),
        cases=as_selection("cases", cases),
        mapping=class_mapping or {},
        plan_name=plan,
        spacing_mm=spacing_mm,
        patch_size=patch_size,
        minutes=minutes,
        half=fp16,
        output=None if output is None else Path(output),
        memory_bytes=memory_bytes,
        device=device,
        workers=workers,
        overwrite=overwrite,
        reporters=tuple(reporters),
    )
    resolved = configure(request, place, callbacks)
    if cross_validate:
        make_folds(resolved.support.cases, folds)  # raises before the training
    result = run_adaptation(resolved, place, callbacks)
    if result.already_done:
        logger.info("this run is finished; nothing to train")
    if cross_validate:
        result = run_folds(resolved, result, place, folds=folds, callbacks=callbacks)
    return Adapter(result.adapter, place)
