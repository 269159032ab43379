"""`fseft preprocess`: resample a dataset to the grid of a model."""

from __future__ import annotations

from pathlib import Path

from fseft.cli import console
from fseft.cli.console import ConsoleCallbacks
from fseft.cli.options import (
    AnnotatedSlices,
    Cluster,
    DatasetFolder,
    Device,
    IgnoreLabel,
    Json,
    Memory,
    Model,
    Reader,
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
    reader: Reader = "",
    ignore_label: IgnoreLabel = None,
    annotated_slices: AnnotatedSlices = "all",
    device: Device = "auto",
    memory: Memory = "",
    as_json: Json = False,
) -> None:
    """Resample a dataset to the spacing of a model, and store it compressed.

    Plans first. Cases that were preprocessed before, from the same files, are skipped, so that an
    interrupted run resumes.

    For example:

    fseft preprocess livers --model phantom-tiny

    fseft preprocess livers --model phantom-tiny --workers 8
    """
    from fseft import api

    result = api.preprocess(
        dataset,
        model,
        memory_bytes=parse_memory(memory),
        device=device,
        workers=cluster or workers,
        strict=strict,
        reader=reader,
        ignore_label=ignore_label,
        annotated_slices=annotated_slices,
        workspace=workspace,
        callbacks=ConsoleCallbacks(),
    )
    if as_json:
        cases = {"processed": list(result.processed), "skipped": list(result.skipped)}
        console.show_json({"folder": str(result.folder), **cases})
        return
    counts = f"{len(result.processed)} cases preprocessed, {len(result.skipped)} skipped"
    console.show_lines([f"{counts}: {result.folder}"])
