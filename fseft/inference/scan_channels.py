"""Channels of scan files: by number, or by name where names are known."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from fseft.dataset_json import NAME, read_declaration
from fseft.errors import FseftError
from fseft.volume.image_files import case_name

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_NUMBER = re.compile(r"_(\d{4})$")


class ScanFile(NamedTuple):
    """A file of a scan.

    Attributes:
        path: The file.
        scan: Name of the scan.
        channel: Name of the channel in lower case; empty for a file with all channels.
    """

    path: Path
    scan: str
    channel: str


def keys(channels: Sequence[str]) -> list[str]:
    """Returns what channels are recognised by: names in lower case, or numbers for equal names.

    Examples:
        >>> keys(["T1", "T2"]), keys(["MR", "MR"])
        (['t1', 't2'], ['0000', '0001'])
    """
    names = [name.lower() for name in channels]
    if len(set(names)) == len(names):
        return names
    numbers = range(len(names))
    return [f"{number:04d}" for number in numbers]


def stored_channels(folder: Path, channels: Sequence[str]) -> list[str]:
    """Returns the keys of the channels of the files in a folder, in the order of their numbers.

    Args:
        folder: Its `dataset.json`, or that of the folder above it, names the channels of its files.
        channels: Names of several channels to look for, which are returned if it names none.
    """
    wanted = keys(channels)
    for place in (folder, folder.parent) if wanted[1:] else ():
        declared = keys(declared_names(place))
        if not set(wanted).isdisjoint(declared):
            return declared
    return wanted


def declared_names(folder: Path) -> list[str]:
    """Returns the names of channels in a `dataset.json`, if it is readable and has any."""
    try:
        content = read_declaration(folder)
    except FseftError:
        return []
    names = content.get("channel_names") or content.get("modality")
    return list(map(str, names.values())) if isinstance(names, dict) else []


def read_name(path: Path, stored: Sequence[str]) -> ScanFile:
    """Returns scan and channel of a file, by the end of its name.

    Args:
        path: The file: `scan_0001.nii.gz`, or `scan_T2.nii.gz` if there are several channels.
        stored: Keys of the channels, from `stored_channels`.
    """
    name = case_name(path)
    match = _NUMBER.search(name)
    # `_0001` is a channel only below the number of channels: a scan may be named scan_0001.
    if match and int(match[1]) < len(stored):
        return ScanFile(path, name[: match.start()], stored[int(match[1])])
    longest_first = sorted(stored, key=len, reverse=True) if stored[1:] else ()
    for channel in longest_first:
        scan = name[: -len(channel) - 1]
        if scan and name[len(scan) :].lower() == f"_{channel}":
            return ScanFile(path, scan, channel)
    return ScanFile(path, name, "")


def order_files(
    files: Sequence[ScanFile], stored: Sequence[str], channels: Sequence[str], required: int
) -> tuple[Path, ...]:
    """Returns the files of a scan, one per required channel, or one with all channels.

    Args:
        files: Files of one scan.
        stored: Keys of the channels in the order of their numbers.
        channels: Names of the channels, in the order of the result.
        required: Number of channels that are needed, the first ones.

    Raises:
        FseftError: A channel is missing, two files are the same channel, or one file has the
            channels in another order.
    """
    scan, first = files[0].scan, files[0].path
    wanted = keys(channels)[:required]
    if files[0].channel:
        _check_complete(scan, first, [file.channel for file in files], stored, channels[:required])
    elif len(files) == 1 and list(stored[: len(wanted)]) != wanted:
        raise FseftError(
            f"has the channels {', '.join(stored)} by {NAME}, expected {', '.join(channels)}",
            case=scan,
            file=first,
            hint="Give one file per channel, or change the order.",
        )
    else:
        wanted = [""]
    paths = {file.channel: file.path for file in files}
    if len(files) > len(paths):
        raise FseftError(
            f"{len(files)} files with the same name, expected {len(wanted)}",
            case=scan,
            file=first,
            hint="Rename the files so that every scan has a unique name.",
        )
    return tuple(paths[channel] for channel in wanted)


def _check_complete(
    scan: str, path: Path, found: Sequence[str], stored: Sequence[str], channels: Sequence[str]
) -> None:
    """Refuses a scan without one of its channels, by name and number."""
    missing = []
    for name, key in zip(channels, keys(channels), strict=True):
        if key not in found:
            number = f" (_{stored.index(key):04d})" if key in stored else ""
            missing.append(f"{name}{number}")
    if missing:
        cause = f"has no channel {', '.join(missing)}"
        raise FseftError(cause, case=scan, file=path.parent, hint="Add the missing file.")
