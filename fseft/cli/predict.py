"""`fseft predict`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from fseft.cli.console import ConsoleCallbacks, duration, note, out
from fseft.cli.options import Cluster, Device, Workers, Workspace
from fseft.errors import pluralise

MIN_SECONDS_TO_ESTIMATE = 5.0


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
    from fseft.cli.parsing import choice
    from fseft.inference.adapter_groups import group_adapters, open_adapters
    from fseft.inference.run import PredictRequest, predict
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
        note(f"{len(adapters)} adapters, forward passes per scan: {len(group_adapters(adapters))}")
    result = predict(request, store, _PredictionProgress())
    skipped = f", {len(result.skipped)} existed already" if result.skipped else ""
    out.print(
        f"{pluralise(len(result.segmented), 'scan')} segmented{skipped}: {output}", soft_wrap=True
    )


class _PredictionProgress(ConsoleCallbacks):
    """Progress over scans, and an estimate after the first windows of a scan that takes long."""

    def __init__(self) -> None:
        self.start = 0.0
        self.estimated: set[str] = set()

    def on_window(self, scan: str, finished: int, total: int) -> None:
        """Prints the remaining time once per scan."""
        if finished == 0:
            self.start = time.monotonic()
        elif scan not in self.estimated:
            self.estimated.add(scan)
            remaining = (time.monotonic() - self.start) / finished * (total - finished)
            if remaining >= MIN_SECONDS_TO_ESTIMATE:
                note(f"{scan}: {pluralise(total, 'window')}, about {duration(remaining)} left")
