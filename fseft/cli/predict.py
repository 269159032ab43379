"""`fseft predict`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fseft.cli.options import Device, Workspace
from fseft.errors import counted

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS_WORTH_TELLING = 5.0


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
        result = predict(request, Store(workspace), advance, warn, windows=_estimate())
    skipped = f", {len(result.skipped)} done before" if result.skipped else ""
    out.print(f"{counted(len(result.done), 'scan')} segmented{skipped}: {output}", soft_wrap=True)


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
                note(f"{name}: {counted(total, 'window')}, about {duration(left)} left")

    return windows
