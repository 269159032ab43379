"""Reads, plans and preprocesses a dataset."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from fseft.api._resolve import as_dataset, as_model, as_workspace

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from fseft.api._resolve import DatasetLike, ModelLike, WorkspaceLike
    from fseft.experiment.callbacks import Callbacks
    from fseft.parallel import Workers
    from fseft.planning.dataset_description import DatasetDescription
    from fseft.planning.preprocessing import Preprocessed
    from fseft.schemas import ChannelMode, Dataset, Fingerprint, Millimetres, Plan, Triple

logger = logging.getLogger(__name__)


def read_dataset(
    folder: str | Path,
    *,
    strict: bool = False,
    reader: str = "",
    ignore_label: int | None = None,
    annotated_slices: str | None = None,
    missing_label: str | None = None,
) -> Dataset:
    """Lists the cases and structures of a dataset; no image is opened.

    Args:
        folder: The folder, in a layout that a reader detects; or an nnU-Net id, such as 102, of a
            dataset below the folder that the environment variable `nnUNet_raw` names.
        strict: Refuse images without a label, labels without an image, and unused files.
        reader: Name of the reader; empty for the one that detects the layout.
        ignore_label: Value of voxels that do not count; None for what the dataset declares.
        annotated_slices: "auto" leaves out slices without any label, in cases that are drawn in
            single slices; "all" counts them as background. None: what a `Dataset` states, or all.
        missing_label: Meaning of a structure that a label file does not contain: "absent" or
            "unannotated". None: what a `Dataset` states, or absent.

    Raises:
        FseftError: The folder is missing, of an unknown layout, or broken.

    Examples:
        >>> read_dataset("livers").labels  # doctest: +SKIP
        {'liver': 1, 'tumour': 2}
    """
    return as_dataset(
        folder,
        strict=strict,
        reader=reader,
        ignore_label=ignore_label,
        annotated_slices=annotated_slices,
        missing_label=missing_label,
    )


def describe_dataset(
    folder: str | Path,
    *,
    modality: str = "",
    labels: Mapping[int, str] | None = None,
    callbacks: Callbacks | None = None,
) -> DatasetDescription | None:
    """Reads the files of a folder in any layout, and proposes a `dataset.json` for them.

    Images and labels are paired by their names, as `images/a.nii.gz` and `labels/a.nii.gz`, or
    `a.nii.gz` and `a_seg.nii.gz`. Nothing is written.

    Args:
        folder: Folder of scans and labels.
        modality: "ct" or "mr"; empty to guess it from the intensities.
        labels: Voxel value -> name of the structure; others are called `structure_<value>`.
        callbacks: Observe the progress.

    Returns:
        The proposal; None if the folder is in a layout that a reader understands.

    Raises:
        FseftError: The folder has no image, its files cannot be paired, a file is damaged, or a
            named value occurs in no label.
    """
    from pathlib import Path

    from fseft.planning import dataset_description
    from fseft.planning.dataset_ids import find_dataset_folder

    resolved = find_dataset_folder(Path(folder))
    return dataset_description.describe_dataset(
        resolved, modality=modality, labels=labels, callbacks=callbacks
    )


def plan(
    dataset: DatasetLike,
    model: ModelLike,
    *,
    spacing_mm: Millimetres | None = None,
    patch_size: Triple | None = None,
    crops_per_step: int | None = None,
    minutes: float | None = None,
    planner: str = "field-of-view",
    name: str = "",
    memory_bytes: int | None = None,
    device: str = "auto",
    workers: Workers = 1,
    strict: bool = False,
    reader: str = "",
    ignore_label: int | None = None,
    annotated_slices: str | None = None,
    missing_label: str | None = None,
    channels: ChannelMode | None = None,
    workspace: WorkspaceLike = ".",
    callbacks: Callbacks | None = None,
) -> tuple[Fingerprint, Plan]:
    """Fingerprints a dataset and plans how it is processed for a model.

    Args:
        dataset: Folder of the dataset.
        model: Name of a foundation model; "none" for random weights.
        spacing_mm: Spacing along the axes of the model; None to plan it.
        patch_size: Voxels of a patch along the same axes; None to plan it.
        crops_per_step: Crops per training step; None to plan it.
        minutes: Training time budget; None for a default on a CPU, and no limit on a GPU.
        planner: Name of the planner of spacing and patch.
        name: Name of an alternative plan, for `adapt(..., plan=name)`.
        memory_bytes: Memory that a training step may use; None for most of the device's memory.
        device: "auto", "cpu" or "cuda".
        workers: Processes, or the address of a dask scheduler.
        strict: Refuse images without a label, labels without an image, and unused files.
        reader: Name of the reader; empty for the one that detects the layout.
        ignore_label: Value of voxels that do not count; None for what the dataset declares.
        annotated_slices: "auto" leaves out slices without any label, in cases that are drawn in
            single slices; "all" counts them as background. None: what a `Dataset` states, or all.
        missing_label: Meaning of a structure that a label file does not contain: "absent" or
            "unannotated". None: what a `Dataset` states, or absent.
        channels: How several channels reach a model that takes one: "first", "mean" or "all"; see
            `adapt`.
        workspace: Folder for fingerprints and plans.
        callbacks: Observe the progress.

    Returns:
        The fingerprint and the plan; both are stored in the workspace too. Warnings are logged.

    Raises:
        FseftError: The dataset is broken, the model unknown or of other channels, or the memory too
            small.
    """
    from fseft.planning.options import plan_options
    from fseft.planning.plan import make_plan
    from fseft.planning.training_step import warn_of_few_steps

    place = as_workspace(workspace)
    fingerprint, decided = make_plan(
        as_dataset(
            dataset,
            strict=strict,
            reader=reader,
            ignore_label=ignore_label,
            annotated_slices=annotated_slices,
            missing_label=missing_label,
        ),
        as_model(model, place),
        place,
        plan_options(
            spacing_mm=spacing_mm,
            patch_size=patch_size,
            crops_per_step=crops_per_step,
            minutes=minutes,
            memory_bytes=memory_bytes,
            device=device,
            planner=planner,
            channels=channels,
        ),
        name=name,
        workers=workers,
        callbacks=callbacks,
    )
    few_steps = warn_of_few_steps(decided, decided.minutes, decided.crops_per_step)
    for warning in (*decided.warnings, *few_steps):
        logger.warning("%s", warning)
    return fingerprint, decided


def preprocess(
    dataset: DatasetLike,
    model: ModelLike,
    *,
    memory_bytes: int | None = None,
    device: str = "auto",
    workers: Workers = 1,
    strict: bool = False,
    reader: str = "",
    ignore_label: int | None = None,
    annotated_slices: str | None = None,
    workspace: WorkspaceLike = ".",
    callbacks: Callbacks | None = None,
) -> Preprocessed:
    """Resamples all cases of a dataset to the grid of a model, into the cache of the workspace.

    A stored plan is used if it is up to date, and neither memory nor device is set; it is never
    replaced. The arguments are as for `plan`.

    Args:
        dataset: Folder of the dataset.
        model: Name of a foundation model.
        memory_bytes: Memory that a training step may use; None for most of the device's memory.
        device: "auto", "cpu" or "cuda".
        workers: Processes, or the address of a dask scheduler.
        strict: Refuse images without a label, labels without an image, and unused files.
        reader: Name of the reader; empty for the one that detects the layout.
        ignore_label: Value of voxels that do not count; None for what the dataset declares.
        annotated_slices: "auto" leaves out slices without any label, in cases that are drawn in
            single slices; "all" counts them as background. None: what a `Dataset` states, or all.
        workspace: Folder for fingerprint and cache, with the plan.
        callbacks: Observe the progress.

    Returns:
        The folder of the cache, and which cases were preprocessed now.

    Raises:
        FseftError: As for `plan`, or a case is broken; all other cases are preprocessed first.
    """
    from fseft.planning import preprocessing
    from fseft.planning.options import plan_options
    from fseft.planning.plan import make_plan

    place, data = (
        as_workspace(workspace),
        as_dataset(
            dataset,
            strict=strict,
            reader=reader,
            ignore_label=ignore_label,
            annotated_slices=annotated_slices,
        ),
    )
    _, decided = make_plan(
        data,
        as_model(model, place),
        place,
        plan_options(memory_bytes=memory_bytes, device=device),
        workers=workers,
        callbacks=callbacks,
        reuse=True,
    )
    for warning in decided.warnings:
        logger.warning("%s", warning)
    return preprocessing.preprocess(data, decided, place, workers=workers, callbacks=callbacks)


def clean(*, everything: bool = False, workspace: WorkspaceLike = ".") -> list[Path]:
    """Removes preprocessed cases whose files have changed since, or of an earlier version.

    What a running process uses stays. Everything that is removed is made again when it is needed.

    Args:
        everything: Remove all preprocessed cases and cached features, also of unchanged files.
        workspace: The workspace.

    Returns:
        The folders that were removed.

    Raises:
        OSError: A folder cannot be removed.
    """
    from fseft.planning import cleaning

    return cleaning.clean(as_workspace(workspace), everything=everything)
