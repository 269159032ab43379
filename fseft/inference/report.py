"""The report of a call of `fseft predict`: what ran on which files, with times and digests."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from pydantic import Field

from fseft.model_zoo.adapter_file import versions
from fseft.schemas import Document, FrozenModel
from fseft.workspace import file_digest, write_document

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from fseft.model_zoo.adapter_file import OpenAdapter


class AdapterReport(FrozenModel):
    """An adapter that was used: its file, and the model it was trained on."""

    path: str
    sha256: str
    method: str
    model: str
    backbone_sha256: str
    licence: str


class CaseReport(FrozenModel):
    """The outcome of a scan, with the sha256 of its files by path."""

    outcome: str
    seconds: float | None = None
    error: str = ""
    inputs: dict[str, str] = Field(default={}, description="path -> sha256")
    outputs: dict[str, str] = Field(default={}, description="path -> sha256")


class RunReport(Document):
    """Description of a call of `fseft predict`."""

    started: str
    seconds: float
    device: str
    options: dict[str, Any]
    versions: dict[str, str]
    adapters: tuple[AdapterReport, ...]
    cases: dict[str, CaseReport]


@dataclass
class RunClock:
    """Start of a run, the seconds that its scans took, and the devices that they ran on."""

    started: str = field(
        default_factory=lambda: datetime.now(timezone.utc).isoformat("T", "seconds")
    )
    start: float = field(default_factory=time.monotonic)
    cases: dict[str, float] = field(default_factory=dict)
    devices: set[str] = field(default_factory=set)

    def record(self, name: str, seconds: float, device: str) -> None:
        """Records the time of a scan, and the device of its networks, if any ran."""
        self.cases[name] = seconds
        if device:
            self.devices.add(device)


def write_run_report(
    path: Path,
    clock: RunClock,
    *,
    device: str,
    options: Mapping[str, Any],
    adapters: Iterable[OpenAdapter],
    cases: Mapping[str, CaseReport],
) -> None:
    """Writes the report of a run.

    Args:
        path: The file.
        clock: Start of the run.
        device: Where the networks ran; empty if none ran.
        options: Options of the call.
        adapters: Adapters that ran.
        cases: Outcome of each scan.

    Raises:
        FseftError: The file cannot be written.
    """
    described = [
        AdapterReport(
            path=str(adapter.path),
            sha256=adapter.sha256,
            method=adapter.manifest.method.name,
            model=adapter.manifest.model,
            backbone_sha256=adapter.manifest.backbone_sha256,
            licence=adapter.manifest.licence,
        )
        for adapter in adapters
    ]
    system = {"python": platform.python_version(), "system": platform.platform()}
    report = RunReport(
        started=clock.started,
        seconds=round(time.monotonic() - clock.start, 3),
        device=device,
        options=dict(options),
        versions={**versions(), **system},
        adapters=tuple(described),
        cases=dict(cases),
    )
    write_document(path, report)


def digests(paths: Iterable[Path]) -> dict[str, str]:
    """Returns the sha256 of each file that exists, and of the files of each folder."""
    files = [
        file
        for path in paths
        for file in (sorted(path.rglob("*")) if path.is_dir() else [path])
        if file.is_file()
    ]
    return {str(file): file_digest(file) for file in files}
