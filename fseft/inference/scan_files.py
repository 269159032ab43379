"""Scans to segment: files, folders of files and DICOM series."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from fseft.errors import FseftError
from fseft.inference.scan_channels import ScanFile, order_files, read_name, stored_channels
from fseft.volume.image_files import (
    SUPPORTED,
    case_name,
    is_image,
    is_segmentation,
    is_unread_image,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

logger = logging.getLogger(__name__)

_MAX_NAMED = 3  # files that an error lists


def gather_scans(
    inputs: Sequence[Path], channels: Sequence[str], required: int | None = None
) -> dict[str, tuple[Path, ...]]:
    """Finds the files of every scan.

    Args:
        inputs: Image files, folders of image files, and folders of DICOM series.
        channels: Names of the channels of each scan, in the order of the result.
        required: Number of channels that are needed, the first ones; None for all.

    Returns:
        Case name -> its files: one per channel, or one with all channels.

    Raises:
        FseftError: No scan, two scans with one name, a scan without one of its channels, or files
            with and without a channel in their names.
    """
    paths = [file for path in inputs for file in _expand(path)]
    stored = {path.parent: stored_channels(path.parent, channels) for path in paths}
    files = _read_names(paths, stored, has_several=len(channels) > 1)
    scans: dict[str, list[ScanFile]] = {}
    for file in sorted(files, key=lambda file: case_name(file.path)):
        scans.setdefault(file.scan, []).append(file)
    if not scans:
        raise _no_scan_error(inputs)
    count = len(channels) if required is None else required
    return {
        name: order_files(parts, stored[parts[0].path.parent], channels, count)
        for name, parts in scans.items()
    }


def _read_names(
    paths: Sequence[Path], stored: Mapping[Path, Sequence[str]], *, has_several: bool
) -> list[ScanFile]:
    """Returns the files with their channels, or without any, as in scan_0000, ..., scan_0009."""
    files = [read_name(path, stored[path.parent]) for path in paths]
    unnamed = [file.path for file in files if not file.channel]
    if not unnamed:
        return files
    if has_several and len(unnamed) < len(files):
        raise _no_channel_error(unnamed)
    return [ScanFile(path, case_name(path), "") for path in paths]


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


def _no_channel_error(unnamed: Sequence[Path]) -> FseftError:
    """Without it, each channel of a scan would be segmented as a separate scan."""
    names = [path.name for path in unnamed[:_MAX_NAMED]]
    hidden = len(unnamed) - len(names)
    more = f" and {hidden} more" if hidden else ""
    return FseftError(
        f"names no channel, unlike other files: {', '.join(names)}{more}",
        file=unnamed[0].parent,
        hint="End the names of all files in a channel (SCAN_0000), or pass these files separately.",
    )


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
