"""`fseft predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fseft.cli.options import Device, Workspace
from fseft.errors import counted


def predict(
    inputs: Annotated[
        list[Path], typer.Argument(metavar="SCANS...", help="Scans: files, folders of files, DICOM series folders.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the segmentations.")],
    adapter: Annotated[Path, typer.Option(help="adapter.safetensors, or the folder of its run.")],
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Also write one channel per class.")] = False,
    tta: Annotated[bool, typer.Option("--tta", help="Average over mirrored copies of the scan: slower.")] = False,
    device: Device = "auto",
    workspace: Workspace = Path(),
) -> None:
    """Segment new scans on their own grid.

    Needs the scan, the adapter and the backbone, nothing else. Scans that are done already are skipped.
    """
    from fseft.cli.console import out, progress, warn
    from fseft.steps.adapters import read_manifest
    from fseft.steps.devices import choose_device
    from fseft.steps.predict import PredictRequest, gather_scans, predict
    from fseft.store import Store

    request = PredictRequest(tuple(inputs), output, adapter, probabilities, tta, choose_device(device))
    scans = gather_scans(request.inputs, len(read_manifest(adapter).channels))
    with progress(len(scans), "predict") as advance:
        result = predict(request, Store(workspace), advance, warn)
    skipped = f", {len(result.skipped)} done before" if result.skipped else ""
    out.print(f"{counted(len(result.done), 'scan')} segmented{skipped}: {output}", soft_wrap=True)
