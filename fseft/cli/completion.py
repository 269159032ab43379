"""Shell completion of methods, models, metrics, structures and adapters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer  # noqa: TC002 - typer evaluates the annotations

from fseft.errors import FseftError

if TYPE_CHECKING:
    from collections.abc import Iterable


def methods(incomplete: str) -> list[str]:
    """Completes names of methods, also the last one of several as in `lora,full`."""
    return _last_of_list(incomplete, _names("method"))


def metrics(incomplete: str) -> list[str]:
    """Completes names of metrics, also the last one of several."""
    return _last_of_list(incomplete, _names("metric"))


def exporters(incomplete: str) -> list[str]:
    """Completes names of export formats."""
    return _last_of_list(incomplete, _names("exporter"))


def formats(incomplete: str) -> list[str]:
    """Completes names of formats of segmentations, also the last one of several."""
    return _last_of_list(incomplete, _names("format"))


def models(context: typer.Context, incomplete: str) -> list[str]:
    """Completes names of models in plugins and in the workspace."""
    from fseft import api

    return _last_of_list(incomplete, api.list_models(_workspace(context)))


def structures(context: typer.Context, incomplete: str) -> list[str]:
    """Completes names of structures of the dataset that is on the command line."""
    from fseft import api

    # Arguments before an option without a value are not assigned to parameters yet.
    folder = context.params.get("dataset") or next(iter(context.args), "")
    try:
        dataset = api.read_dataset(folder)
    except (FseftError, OSError):
        return []
    return _last_of_list(incomplete, dataset.labels)


def adapters(context: typer.Context, incomplete: str) -> list[str]:
    """Completes run folders of the workspace that contain an adapter."""
    runs = _workspace(context) / "runs"
    folders = sorted(str(file.parent) for file in runs.rglob("adapter.safetensors"))
    return _last_of_list(incomplete, folders)


def components(context: typer.Context, incomplete: str) -> list[str]:
    """Completes names of components of the kind that is on the command line."""
    kind = context.params.get("kind")
    if kind is None:
        return []
    return _last_of_list(incomplete, _names(getattr(kind, "value", kind)))


def _names(kind: str) -> Iterable[str]:
    from fseft import api

    return api.list_components(kind)


def _workspace(context: typer.Context) -> Path:
    return Path(context.params.get("workspace") or ".")


def _last_of_list(incomplete: str, names: Iterable[str]) -> list[str]:
    """Completes the text after the last comma."""
    listed, comma, last = incomplete.rpartition(",")
    matching = [name for name in names if name.startswith(last)]
    return [f"{listed}{comma}{name}" for name in matching]
