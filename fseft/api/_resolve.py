"""Turns paths and names into the objects that they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from fseft.inference.adapter import Adapter
from fseft.model_zoo.catalogue import FoundationModel, find_model
from fseft.planning.dataset_reading import read_dataset
from fseft.schemas import Dataset
from fseft.workspace import Workspace

DatasetLike: TypeAlias = str | Path | Dataset
ModelLike: TypeAlias = str | FoundationModel
WorkspaceLike: TypeAlias = str | Path | Workspace
AdapterLike: TypeAlias = str | Path | Adapter


def as_workspace(workspace: WorkspaceLike) -> Workspace:
    """Returns the workspace in a folder."""
    return workspace if isinstance(workspace, Workspace) else Workspace(Path(workspace))


def as_dataset(dataset: DatasetLike, *, strict: bool = False) -> Dataset:
    """Reads a dataset folder; see `fseft.planning.dataset_reading.read_dataset`."""
    if isinstance(dataset, Dataset):
        return dataset
    return read_dataset(Path(dataset), strict=strict)


def as_model(model: ModelLike, workspace: Workspace) -> FoundationModel:
    """Resolves the name of a foundation model; see `fseft.model_zoo.catalogue.find_model`."""
    return model if isinstance(model, FoundationModel) else find_model(model, workspace)
