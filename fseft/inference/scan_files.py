"""Scans to segment: files, folders of files and DICOM series."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

from fseft.errors import FseftError
from fseft.volume.image_files import (
    SUPPORTED,
    case_name,
    is_image,
    is_segmentation,
    is_unread_image,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

logger = logging.getLogger(__name__)

_CHANNEL_SUFFIX = re.compile(r"_(\d{4})$")


def gather_scans(inputs: Sequence[Path], num_channels: int) -> dict[str, tuple[Path, ...]]:
    """Finds the files of every scan.

    Args:
        inputs: Image files, folders of image files, and folders of DICOM series.
        num_channels: Number of channels of each scan.

    Returns:
        Case name -> its files: one per channel, or one with all channels.

    Raises:
        FseftError: No scan, two scans with one name, or a scan without one of its channels.
    """
    files = [file for path in inputs for file in _expand(path)]
    # `_0001` is a channel only below the number of channels: a scan may be named scan_0001.
    suffixed = all(_channel(file) in range(num_channels) for file in files)
    scans: dict[str, list[Path]] = {}
    for file in sorted(files, key=case_name):
        name = case_name(file)
        scans.setdefault(name[:-5] if suffixed else name, []).append(file)
    for name, paths in scans.items():
        _check_files(name, paths, range(num_channels) if suffixed else (_channel(paths[0]),))
    if not scans:
        raise _no_scan_error(inputs)
    return {name: tuple(paths) for name, paths in scans.items()}


def _check_files(name: str, paths: Sequence[Path], expected: Sequence[int | None]) -> None:
    """Refuses a scan without one of its channels, and two scans with one name."""
    found = [_channel(path) for path in paths]
    missing = [
        f"_{number:04d}" for number in expected if number not in found and number is not None
    ]
    if missing:
        cause = f"has no channel {', '.join(missing)}"
        raise FseftError(cause, case=name, file=paths[0].parent, hint="Add the missing file.")
    if found != list(expected):
        raise FseftError(
            f"{len(paths)} files with the same name, expected {len(expected)}",
            case=name,
            file=paths[0],
            hint="Rename the files so that every scan has a unique name.",
        )


def _expand(path: Path) -> list[Path]:
    if not path.exists():
        raise FseftError("the file or folder does not exist", file=path, hint="Check the path.")
    path = path.absolute()  # so that "." has a name
    if not path.is_dir() or is_image(path):
        return [path]
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    images = [entry for entry in entries if is_image(entry) and not is_segmentation(entry)]
    others = [entry for entry in entries if is_unread_image(entry) or is_segmentation(entry)]
    skipped = [entry.name for entry in others]
    if images and skipped:
        logger.warning("%s: skipped %s, which are not read as scans", path, ", ".join(skipped))
    return images


def _no_scan_error(inputs: Sequence[Path]) -> FseftError:
    """The hint names images in deeper folders, as in patient/study/series."""
    entries = [entry for folder in inputs for entry in sorted(folder.rglob("*"))]
    file = inputs[0] if inputs else None
    unread = [entry.name for entry in entries if entry.is_file() and is_unread_image(entry)]
    cause, hint = "no scan was found", "Pass image files, or folders of images."
    if first := next((entry for entry in entries if is_image(entry)), None):
        hint = f"Pass {first.parent if first.is_file() else first}."
    elif unread:
        cause, hint = f"no scan is in a format that is read ({unread[0]})", SUPPORTED
    return FseftError(cause, hint=hint, file=file)


def _channel(path: Path) -> int | None:
    match = _CHANNEL_SUFFIX.search(case_name(path))
    return int(match[1]) if match else None
