"""`fseft predict`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fseft.cli.options import Cluster, Device, Workers, Workspace
from fseft.errors import pluralise

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS_WORTH_TELLING = 5.0


def predict(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="SCANS...", help="Scans: files, folders of files, DICOM series folders."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the segmentations.")],
    adapter: Annotated[
        list[Path], typer.Option(help="adapter.safetensors, or the folder of its run; repeatable.")
    ],
    overlap: Annotated[
        str,
        typer.Option(
            help="Of several adapters: probability (the surest wins), first, or separate (a folder each)."
        ),
    ] = "probability",
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also write one channel per class.")
    ] = False,
    tta: Annotated[
        bool, typer.Option("--tta", help="Average over mirrored copies of the scan: slower.")
    ] = False,
    device: Device = "auto",
    workers: Workers = 1,
    cluster: Cluster = "",
    workspace: Workspace = Path(),
) -> None:
    """Segment new scans on their own grid.

    Needs the scan, the adapter and the backbone, nothing else. Scans that are done already are skipped. Several
    adapters that learned from the same frozen features share one pass of the network.
    """
    from fseft.cli.console import note, out, progress, warn
    from fseft.cli.parsing import choice
    from fseft.inference.adapter_groups import group_adapters, open_adapters
    from fseft.inference.run import PredictRequest, predict
    from fseft.inference.scan_files import gather_scans
    from fseft.workspace import Workspace

    store = Workspace(workspace)
    request = PredictRequest(
        inputs=tuple(inputs),
        output=output,
        adapters=tuple(adapter),
        overlap=choice("--overlap", overlap, ("probability", "first", "separate")),  # type: ignore[arg-type]
        probabilities=probabilities,
        tta=tta,
        device=device,
        workers=cluster or workers,
    )
    adapters = open_adapters(request.adapters, store)
    if len(adapters) > 1:
        note(f"{len(adapters)} adapters, passes over each scan: {len(group_adapters(adapters))}")
    scans = gather_scans(request.inputs, len(adapters[0].manifest.channels))
    with progress(len(scans), "predict") as advance:
        result = predict(request, store, advance, warn, windows=_estimate())
    skipped = f", {len(result.skipped)} done before" if result.skipped else ""
    out.print(f"{pluralise(len(result.done), 'scan')} segmented{skipped}: {output}", soft_wrap=True)


def _estimate() -> Callable[[str, int, int], None]:
    """Say after the first windows of a scan how long the rest may take, if it is long."""
    from fseft.cli.console import duration, note

    began, told = 0.0, set()

    def windows(name: str, done: int, total: int) -> None:
        nonlocal began
        if done == 0:
            began = time.monotonic()
        elif name not in told:
            told.add(name)
            left = (time.monotonic() - began) / done * (total - done)
            if left >= SECONDS_WORTH_TELLING:
                note(f"{name}: {pluralise(total, 'window')}, about {duration(left)} left")

    return windows
