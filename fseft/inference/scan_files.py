"""Find the scans to segment: files, folders of files, DICOM series folders, one file per channel or one for all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.errors import FseftError
from fseft.volume.image import case_name, is_image

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


def gather_scans(
    inputs: Sequence[Path], channels: int, warn: Callable[[str], None] = lambda _: None
) -> dict[str, tuple[Path, ...]]:
    """Case name -> its files, one per channel; files, folders of files, and DICOM series folders.

    Args:
        inputs: As the user gives them.
        channels: Of each scan.
        warn: Told which folders inside a folder were passed over.

    Raises:
        FseftError: Nothing found, two scans of one name, or a scan without one of its channels.
    """
    files = [scan for path in inputs for scan in _expand(path, warn)]
    # `_0001` is a channel only where there are so many: single-channel scans may well be called scan_0001, scan_0002.
    suffixed = all(_channel(path) in range(channels) for path in files)
    scans: dict[str, list[Path]] = {}
    for path in sorted(files, key=case_name):
        name = case_name(path)
        scans.setdefault(name[:-5] if suffixed else name, []).append(path)
    for name, paths in scans.items():
        expected = list(range(channels)) if suffixed else [_channel(paths[0])]
        if [_channel(path) for path in paths] != expected:
            raise FseftError(
                f"{len(paths)} file(s) of one name, expected {len(expected)}",
                case=name,
                file=paths[0],
                hint="Give each scan a name of its own.",
            )
    if not scans:
        raise _no_scan(inputs)
    return {name: tuple(paths) for name, paths in scans.items()}


def _expand(path: Path, warn: Callable[[str], None]) -> list[Path]:
    if not path.exists():
        raise FseftError("there is no such file or folder", file=path, hint="Check the path.")
    path = path.absolute()  # so that "." has a name
    if not path.is_dir() or is_image(path):
        return [path]
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    images = [entry for entry in entries if is_image(entry)]
    passed = [entry.name for entry in entries if entry.is_dir() and entry not in images]
    if images and passed:
        warn(
            f"{path}: passed over the folders {', '.join(passed)}; give them by themselves if they hold scans"
        )
    return images


def _no_scan(inputs: Sequence[Path]) -> FseftError:
    """Images may lie deeper than one folder, as in patient/study/series."""
    below = (path for folder in inputs for path in sorted(folder.rglob("*")) if is_image(path))
    first = next(below, None)
    hint = (
        f"Give {first.parent if first.is_file() else first}."
        if first
        else "Give image files or folders."
    )
    return FseftError("there is no scan", file=inputs[0] if inputs else None, hint=hint)


def _channel(path: Path) -> int | None:
    tail = case_name(path)[-5:]
    return int(tail[1:]) if tail[:1] == "_" and tail[1:].isdigit() and len(tail) == 5 else None
