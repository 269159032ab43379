"""DICOM files of a folder: which of them are slices of its only series."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fseft.errors import FseftError, pluralise
from fseft.volume._logging import warn_once
from fseft.volume.dicom_lengths import check_lengths

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fseft.schemas import Modality

_HEAD_BYTES = 2048  # contain the SOP class of any file
_PREAMBLE_BYTES = 128
_STANDARD = "1.2.840.10008."
_STORAGE = f"{_STANDARD}5.1.4.1.1."
_CT_CLASSES = frozenset(f"{_STORAGE}{number}" for number in ("2", "2.1", "2.2"))
_MR_CLASSES = frozenset(f"{_STORAGE}{number}" for number in ("4", "4.1", "4.3", "4.4"))
_PET_CLASSES = frozenset(f"{_STORAGE}{number}" for number in ("20", "128", "128.1", "130"))
_SLICE_CLASSES = _CT_CLASSES | _MR_CLASSES | _PET_CLASSES
"""Also enhanced, and converted from one file per slice; the last ones with nuclear medicine."""
_OTHER_CLASSES = {
    f"{_STANDARD}1.3.10": "directory",
    f"{_STORAGE}7": "secondary capture",
    f"{_STORAGE}11": "presentation state",
    f"{_STORAGE}66": "raw data",
    f"{_STORAGE}66.4": "segmentation",
    f"{_STORAGE}88": "structured report",
    f"{_STORAGE}104": "encapsulated document",
    f"{_STORAGE}481.2": "RT dose",
    f"{_STORAGE}481.3": "RT structure set",
    f"{_STORAGE}481.5": "RT plan",
}
"""SOP class, or the beginning of several, -> what it is."""
_CLASS_ELEMENTS = (b"\x02\0\x02\0", b"\x08\0\x16\0")  # in the file meta information, in the data
_PIXEL_DATA = b"\xe0\x7f\x10\0"
_MAX_NAMED = 5  # files in a message


def is_dicom(file: Path) -> bool:
    """Returns whether a file is DICOM; old files have no preamble, and begin with an element."""
    head = _read_head(file)
    if head[_PREAMBLE_BYTES : _PREAMBLE_BYTES + 4] == b"DICM":
        return True
    begins_with_element = head[:4] == b"\x02\0\0\0" or (
        head[:2] == b"\x08\0" and head[3:4] == b"\0"
    )
    return begins_with_element and _STANDARD.encode() in head


def is_series(folder: Path) -> bool:
    """Returns whether a folder contains a DICOM file."""
    return any(is_dicom(file) for file in folder.iterdir() if file.is_file())


def series_modality(folder: Path) -> Modality | None:
    """Returns the modality of a series by the SOP classes of its slices; None if they differ.

    Args:
        folder: Folder of DICOM files.
    """
    files = [file for file in folder.iterdir() if file.is_file() and is_dicom(file)]
    classes = set(map(_sop_class, files)) & _SLICE_CLASSES
    if classes and classes <= _CT_CLASSES:
        return "ct"
    return "mr" if classes and classes <= _MR_CLASSES else None


def series_files(sitk: Any, folder: Path) -> Sequence[str]:
    """Returns the files of the only series in a folder, and names other files in a warning.

    Args:
        sitk: SimpleITK.
        folder: Folder of DICOM files.

    Raises:
        FseftError: The folder contains no or several series, or a damaged slice.
    """
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and is_dicom(file)]
    _check_lengths(files)
    classes = {file.name: _sop_class(file) for file in files}
    slices = _slices(classes)
    series = _listed_series(sitk, folder, slices)
    listed = {Path(file).name for names in series.values() for file in names}
    for name in sorted(slices - listed):
        raise _unlisted_error(folder / name, classes[name])
    if not series:
        hint = "Give an image file, or a folder of slices."
        raise FseftError("is a folder without a DICOM series", hint=hint)
    if len(series) > 1:
        counts = [f"{uid or 'no UID'} ({len(series[uid])} files)" for uid in sorted(series)]
        cause = f"contains {len(series)} series: {', '.join(counts)}"
        raise FseftError(cause, hint="Give a folder with one of them.")
    _warn_skipped(folder, {name: classes[name] for name in classes if name not in slices})
    return next(iter(series.values()))


def _check_lengths(files: Sequence[Path]) -> None:
    for file in files:
        try:
            check_lengths(file)
        except FseftError as error:
            raise error.located(file=file) from error


def _slices(classes: Mapping[str, str]) -> set[str]:
    """Returns the files of slices; without any, all files: research exports have other classes.

    Files without a class count too, as they are damaged.
    """
    slices = {name for name, sop_class in classes.items() if sop_class in _SLICE_CLASSES}
    if not slices:
        return set(classes)
    without_class = {name for name, sop_class in classes.items() if not sop_class}
    return slices | without_class


def surplus_pixel_bytes(file: Path, expected: int) -> int:
    """Returns the bytes of uncompressed pixels that a header does not describe.

    Args:
        file: A slice.
        expected: Bytes of the pixels according to the header.
    """
    content = file.read_bytes()
    start = content.find(_PIXEL_DATA)
    while start >= 0:
        is_explicit = content[start + 4 : start + 6] in (b"OW", b"OB")
        first = start + (12 if is_explicit else 8)
        size = int.from_bytes(content[first - 4 : first], "little")
        if size >= expected:  # a smaller one belongs to an icon
            is_compressed = first + size > len(content)  # of undefined length
            return 0 if is_compressed else size - expected
        start = content.find(_PIXEL_DATA, first)
    return 0


def _read_head(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(_HEAD_BYTES)
    except PermissionError:  # reported with the case when the file is read
        return b""


def _sop_class(file: Path) -> str:
    """Returns the SOP class UID of a file; empty if its header has none."""
    head = _read_head(file)
    for element in _CLASS_ELEMENTS:
        _, found, after = head.partition(element)
        if not found:
            continue
        for order in ("little", "big"):
            size = int.from_bytes(after[2:4] if after[:2] == b"UI" else after[:4], order)
            value = after[4 : 4 + size].rstrip(b"\0 ").decode("latin-1")
            if value.replace(".", "").isdigit():
                return value
    return ""


def _listed_series(sitk: Any, folder: Path, slices: set[str]) -> dict[str, list[str]]:
    """Returns the slices that GDCM can read, by series."""
    reader, series = sitk.ImageSeriesReader, {}
    for uid in reader.GetGDCMSeriesIDs(str(folder)):
        files = reader.GetGDCMSeriesFileNames(str(folder), uid)
        if chosen := [file for file in files if Path(file).name in slices]:
            series[uid] = chosen
    return series


def _unlisted_error(file: Path, sop_class: str) -> FseftError:
    """Returns the error for a file that GDCM omits: another object, or a truncated slice."""
    kind = _kind(sop_class)
    if sop_class in _SLICE_CLASSES or not sop_class:
        return FseftError("is a damaged DICOM file", hint="Copy or export it again.", file=file)
    cause = f"is not an image but a DICOM object of another kind ({kind})"
    return FseftError(cause, hint="Give a folder with the slices of a series.", file=file)


def _warn_skipped(folder: Path, classes: Mapping[str, str]) -> None:
    if not classes:
        return
    named = [f"{name} ({_kind(classes[name])})" for name in list(classes)[:_MAX_NAMED]]
    more = ", ..." if len(classes) > _MAX_NAMED else ""
    subject = pluralise(len(classes), "DICOM file")
    warn_once(f"{folder}: skipped {subject} of other kinds: {', '.join(named)}{more}")


def _kind(sop_class: str) -> str:
    """Returns what a SOP class is, or its UID."""
    parts = sop_class.split(".")
    for count in range(len(parts), 0, -1):
        if kind := _OTHER_CLASSES.get(".".join(parts[:count])):
            return kind
    return f"SOP class {sop_class}"
