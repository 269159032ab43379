"""The DICOM series that a segmentation refers to, and codes as DICOM data sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fseft.errors import FseftError
from fseft.escaping import printable
from fseft.volume._logging import warn_once

if TYPE_CHECKING:
    from pathlib import Path

    from fseft.volume.segmentation import Segmentation

UTF8 = "ISO_IR 192"
MANUFACTURER, MODEL = "fseft", "fseft predict"
SERIES_NUMBERS = {"SEG": 900, "RTSTRUCT": 901}
MAX_LABEL = 64  # characters of a long string (LO)

_FILE_META = {
    "SOPClassUID": "MediaStorageSOPClassUID",
    "SOPInstanceUID": "MediaStorageSOPInstanceUID",
}
_OF_SERIES = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber"),
    *("StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)


def source_slices(segmentation: Segmentation) -> list[Any]:
    """Reads the headers of the series in the order of the first axis of the labels.

    Identifiers that are missing are taken from the file meta information, or else generated, with a
    warning; the same series always gets the same ones.

    Args:
        segmentation: A segmentation of a DICOM series.

    Returns:
        Data sets of pydicom, without pixels.

    Raises:
        FseftError: The series has changed or is gone.
    """
    from pydicom import dcmread

    from fseft.volume.dicom import slice_files

    folder = segmentation.scan[0]
    try:
        names = slice_files(folder)
        slices = [dcmread(folder / name, stop_before_pixels=True) for name in names]
    except (FseftError, OSError) as error:
        cause = f"the series that the segmentation refers to cannot be read ({error})"
        raise FseftError(cause, hint="Keep it until the segmentation is written.") from error
    if len(slices) != len(segmentation.labels):
        cause = f"has {len(slices)} slices, its segmentation {len(segmentation.labels)}"
        raise FseftError(cause, file=folder, hint="Segment the series again.")
    _complete(slices, folder)
    return slices


def _complete(slices: list[Any], folder: Path) -> None:
    """Fills in identifiers, and empty values of attributes that must exist."""
    from pydicom.uid import generate_uid

    generated = set()
    series = [str(getattr(item.file_meta, "MediaStorageSOPInstanceUID", "")) for item in slices]
    for number, item in enumerate(slices):
        for attribute, source in _FILE_META.items():
            if not getattr(item, attribute, ""):
                stored = getattr(item.file_meta, source, "")
                if not stored:
                    generated.add(attribute)
                entropy = [attribute, str(folder), *series, str(number)]
                setattr(item, attribute, stored or generate_uid(entropy_srcs=entropy))
        for attribute in _OF_SERIES:
            if not getattr(item, attribute, ""):
                generated.add(attribute)
                setattr(item, attribute, generate_uid(entropy_srcs=[attribute, *series]))
        for attribute in _EMPTY:
            if attribute not in item:
                setattr(item, attribute, "")
    if generated:
        names = ", ".join(sorted(generated))
        warn_once(
            f"{folder}: has no {names}; the segmentation has generated ones, by which no archive "
            "finds the series"
        )


def label_text(name: str) -> str:
    r"""Returns a name as a long string of DICOM, which has no backslash and 64 characters at most.

    Examples:
        >>> label_text("vein\\artery")
        'vein/artery'
    """
    one_line = " ".join(name.split())
    text = printable(one_line).replace("\\", "/")
    return text[:MAX_LABEL] or "structure"


def warn_private(names: list[str]) -> None:
    """Logs which structures have a private code."""
    if names:
        listed = ", ".join(names)
        warn_once(f"no SNOMED CT code is known for {listed}: written with private codes (99FSEFT)")
