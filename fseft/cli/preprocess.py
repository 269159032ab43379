"""`fseft preprocess`: bring a dataset onto a model's grid, once."""

from __future__ import annotations

from pathlib import Path

from fseft.cli import console
from fseft.cli.console import ConsoleCallbacks
from fseft.cli.options import (
    Cluster,
    DatasetFolder,
    Device,
    Memory,
    Model,
    Strict,
    Workers,
    Workspace,
)
from fseft.cli.parsing import parse_memory


def preprocess(
    dataset: DatasetFolder,
    model: Model,
    workers: Workers = 1,
    cluster: Cluster = "",
    workspace: Workspace = Path(),
    strict: Strict = False,
    device: Device = "auto",
    memory: Memory = "",
) -> None:
    """Resample a dataset to a model's grid and store it compressed.

    Plans first. Cases that are there already, made of the same files, are left as they are; a run that was
    killed goes on where it was.
    """
    from fseft import api

    result = api.preprocess(
        dataset,
        model,
        memory_bytes=parse_memory(memory) if memory else None,
        device=device,
        workers=cluster or workers,
        strict=strict,
        workspace=workspace,
        callbacks=ConsoleCallbacks(),
    )
    done, skipped = len(result.done), len(result.skipped)
    summary = f"{done} cases preprocessed, {skipped} were there already: {result.folder}"
    console.show_lines([summary])
