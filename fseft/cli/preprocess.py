"""`fseft preprocess`: bring a dataset onto a model's grid, once."""

from __future__ import annotations

from pathlib import Path

from fseft.cli import console
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
    from fseft.planning import preprocessing as step
    from fseft.planning.dataset_reading import read_dataset
    from fseft.planning.plan import make_plan
    from fseft.workspace import Workspace

    store = Workspace(workspace)
    total = len(read_dataset(dataset, strict=strict).cases)
    with console.progress(total, "measure") as advance:
        _, plan = make_plan(
            dataset,
            model,
            store,
            memory_bytes=parse_memory(memory) if memory else None,
            device=device,
            workers=cluster or workers,
            strict=strict,
            progress=advance,
            reuse=True,
        )
    for warning in plan.warnings:
        console.warn(warning)
    with console.progress(total, "preprocess") as advance:
        made = step.preprocess(
            dataset, plan, store, workers=cluster or workers, strict=strict, progress=advance
        )
    done = f"{len(made.done)} cases preprocessed, {len(made.skipped)} were there already: {made.folder}"
    console.out.print(done, markup=False, highlight=False, soft_wrap=True)
