"""The DICOM series that a segmentation refers to, and codes as DICOM data sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fseft.anatomy.terminology import term_of
from fseft.errors import FseftError
from fseft.escaping import printable
from fseft.volume._logging import warn_once

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from fseft.anatomy.terminology import Term
    from fseft.volume.segmentation import Segmentation

UTF8 = "ISO_IR 192"
MANUFACTURER, MODEL = "fseft", "fseft predict"
SERIES_NUMBERS = {"SEG": 900, "RTSTRUCT": 901}
MAX_LABEL = 64  # characters of a long string (LO)

_FILE_META = {
    "SOPClassUID": "MediaStorageSOPClassUID",
    "SOPInstanceUID": "MediaStorageSOPInstanceUID",
}
_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # class of an image of any modality
_OF_SLICE = "SOPInstanceUID"
_OF_SERIES = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber"),
    *("StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)


def source_slices(segmentation: Segmentation) -> list[Any]:
    """Reads the headers of the series in the order of the first axis of the labels.

    Identifiers that are missing are taken from the file meta information, or else generated, with a
    warning; the same files get the same ones, in any folder, and others get others.

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
        # By force: files without preamble are read as scans too.
        slices = [dcmread(folder / name, stop_before_pixels=True, force=True) for name in names]
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
    for item in slices:
        for attribute, source in _FILE_META.items():
            if not getattr(item, attribute, ""):
                setattr(item, attribute, getattr(item.file_meta, source, ""))
        item.SOPClassUID = item.SOPClassUID or _CAPTURE
        for attribute in _EMPTY:
            if attribute not in item:
                setattr(item, attribute, "")
    generated = _generate_identifiers(slices, folder)
    if generated:
        names = ", ".join(sorted(generated))
        warn_once(
            f"{folder}: has no {names}; the segmentation has generated ones, by which no archive "
            "finds the series"
        )


def _generate_identifiers(slices: list[Any], folder: Path) -> set[str]:
    """Adds missing identifiers, derived from all bytes of the series; returns their names."""
    from pydicom.uid import generate_uid

    from fseft.volume.image import content_digest

    missing = [
        (attribute, number if attribute == _OF_SLICE else 0, item)
        for number, item in enumerate(slices)
        for attribute in (*_OF_SERIES, _OF_SLICE)
        if not getattr(item, attribute, "")
    ]
    key = content_digest(folder) if missing else ""
    for attribute, number, item in missing:
        uid = generate_uid(entropy_srcs=[attribute, key, str(number)])
        setattr(item, attribute, uid)
    return {attribute for attribute, _, _ in missing}


def label_text(name: str) -> str:
    r"""Returns a name as a long string of DICOM, which has no backslash and 64 characters at most.

    Examples:
        >>> label_text("vein\\artery")
        'vein/artery'
    """
    one_line = " ".join(name.split())
    text = printable(one_line).replace("\\", "/")
    return text[:MAX_LABEL] or "structure"


def series_description(segmentation: Segmentation) -> str:
    """Returns the description of the series that a segmentation is written as."""
    return label_text(f"fseft: {segmentation.algorithm}")


def terms_of(structures: Iterable[str]) -> dict[str, Term]:
    """Returns the codes of each structure, and logs which have a private one."""
    terms = {name: term_of(name) for name in structures}
    private = [name for name, term in terms.items() if term.kind.is_private]
    if private:
        listed = ", ".join(private)
        warn_once(f"no SNOMED CT code is known for {listed}: written with private codes (99FSEFT)")
    return terms
