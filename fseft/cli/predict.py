"""`fseft predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from fseft.cli.callbacks import PredictCallbacks
from fseft.cli.options import Cluster, Device, Workers, Workspace
from fseft.errors import pluralise


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
        Literal["probability", "first", "separate"],
        typer.Option(
            help="Of several adapters: probability (the highest wins), first, or separate folders."
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

    Needs the scan, the adapter and the backbone, nothing else. Scans that are done already are
    skipped. Several adapters that learned from the same frozen features share one pass of the
    network.
    """
    from fseft import api
    from fseft.cli.console import out

    result = api.predict(
        inputs,
        adapter,
        output,
        overlap=overlap,
        probabilities=probabilities,
        tta=tta,
        device=device,
        workers=cluster or workers,
        workspace=workspace,
        callbacks=PredictCallbacks(),
    )
    skipped = f", {len(result.skipped)} existed already" if result.skipped else ""
    out.print(
        f"{pluralise(len(result.segmented), 'scan')} segmented{skipped}: {output}", soft_wrap=True
    )
