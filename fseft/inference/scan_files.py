"""Scans to segment: files, folders of files and DICOM series."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

from fseft.errors import FseftError
from fseft.volume.image import case_name, is_image

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
        expected = list(range(num_channels)) if suffixed else [_channel(paths[0])]
        if [_channel(path) for path in paths] != expected:
            raise FseftError(
                f"{len(paths)} file(s) with the same name, expected {len(expected)}",
                case=name,
                file=paths[0],
                hint="Rename the files so that every scan has a unique name.",
            )
    if not scans:
        raise _no_scan_error(inputs)
    return {name: tuple(paths) for name, paths in scans.items()}


def _expand(path: Path) -> list[Path]:
    if not path.exists():
        raise FseftError("the file or folder does not exist", file=path, hint="Check the path.")
    path = path.absolute()  # so that "." has a name
    if not path.is_dir() or is_image(path):
        return [path]
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    images = [entry for entry in entries if is_image(entry)]
    skipped = [entry.name for entry in entries if entry.is_dir() and entry not in images]
    if images and skipped:
        logger.warning(
            "%s: skipped the folders %s; pass them too if they hold scans", path, ", ".join(skipped)
        )
    return images


def _no_scan_error(inputs: Sequence[Path]) -> FseftError:
    """The hint names images in deeper folders, as in patient/study/series."""
    nested = (path for folder in inputs for path in sorted(folder.rglob("*")) if is_image(path))
    first = next(nested, None)
    if first is None:
        hint = "Pass image files, or folders of images."
    else:
        hint = f"Pass {first.parent if first.is_file() else first}."
    return FseftError("no scan was found", file=inputs[0] if inputs else None, hint=hint)


def _channel(path: Path) -> int | None:
    match = _CHANNEL_SUFFIX.search(case_name(path))
    return int(match[1]) if match else None
