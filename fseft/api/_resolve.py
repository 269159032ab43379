"""Turns paths and names into the objects that they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from fseft.errors import FseftError, did_you_mean
from fseft.inference.adapter import Adapter
from fseft.model_zoo.catalogue import FoundationModel, find_model, model_names
from fseft.planning.dataset_reading import read_dataset, with_annotation
from fseft.schemas import Dataset
from fseft.temporaries import remove_leftovers
from fseft.workspace import Workspace, model_cache

if TYPE_CHECKING:
    from collections.abc import Sequence

DatasetLike: TypeAlias = str | Path | Dataset
ModelLike: TypeAlias = str | FoundationModel
WorkspaceLike: TypeAlias = str | Path | Workspace
AdapterLike: TypeAlias = str | Path | Adapter
Item = TypeVar("Item")


def as_workspace(workspace: WorkspaceLike) -> Workspace:
    """Returns the workspace in a folder, after restoring models whose replacement was killed."""
    resolved = workspace if isinstance(workspace, Workspace) else Workspace(Path(workspace))
    for folder in (resolved.root / "models", *model_cache().glob("*")):
        remove_leftovers(folder)
    return resolved


def as_dataset(
    dataset: DatasetLike,
    *,
    strict: bool = False,
    reader: str = "",
    ignore_label: int | None = None,
    annotated_slices: str | None = None,
    missing_label: str | None = None,
) -> Dataset:
    """Reads a dataset folder; see `fseft.planning.dataset_reading.read_dataset`.

    Args:
        dataset: Folder of the dataset, or the dataset itself, which is not read again.
        strict: Refuse incomplete cases and unused files, instead of warning.
        reader: Name of the reader; empty for the one that detects the layout.
        ignore_label: Value of voxels that do not count; None for what the dataset declares.
        annotated_slices: "auto" leaves out slices without any label, in cases that are drawn in
            single slices. None: what the dataset states, or all.
        missing_label: Meaning of a structure that a label file does not contain: "absent" or
            "unannotated". None: what the dataset states, or absent.

    Raises:
        FseftError: As for `read_dataset`.
    """
    if isinstance(dataset, Dataset):
        return with_annotation(dataset, ignore_label, annotated_slices, missing_label)
    return read_dataset(
        Path(dataset),
        strict=strict,
        reader=reader,
        ignore_label=ignore_label,
        annotated_slices=annotated_slices,
        missing_label=missing_label,
    )


def as_model(model: ModelLike, workspace: Workspace) -> FoundationModel:
    """Resolves the name of a foundation model; see `fseft.model_zoo.catalogue.find_model`.

    Args:
        model: Name of the model, or the model itself, which is returned unchanged.
        workspace: Where models of the user are stored.

    Raises:
        FseftError: As for `find_model`.
    """
    return model if isinstance(model, FoundationModel) else find_model(model, workspace)


def as_selection(name: str, values: Sequence[Item] | None) -> tuple[Item, ...]:
    """Returns the selected items; empty for None, which stands for all.

    An empty selection is a mistake, such as an empty file of names, and must not select all.

    Args:
        name: The parameter, for the error.
        values: The selection.

    Raises:
        FseftError: The selection is empty.
    """
    if values is None:
        return ()
    if not values:
        hint = "Name at least one, or leave the option out to take all."
        raise FseftError(f"the selection `{name}` is empty", hint=hint)
    return tuple(values)


def as_initial_weights(
    init: str | Path | FoundationModel, workspace: Workspace
) -> FoundationModel | Path | None:
    """Returns a model, or a file of weights, to start a pre-training from; None for random weights.

    Args:
        init: Name of a model, a file, or a model; an empty string for random weights.
        workspace: Where models of the user are stored.

    Raises:
        FseftError: It is neither the name of a model nor a file.
    """
    if isinstance(init, FoundationModel):
        return init
    if init == "":
        return None
    names = model_names(workspace)
    if str(init) in names:
        return find_model(str(init), workspace)
    if Path(init).is_file():
        return Path(init)
    cause = f"the initial weights {str(init)!r} are neither a file nor a model"
    raise FseftError(cause, hint=did_you_mean(str(init), names))
