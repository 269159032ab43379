"""Names of image files: which are read, and the case that they belong to."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from fseft.volume.dicom_files import is_series

if TYPE_CHECKING:
    from pathlib import Path, PurePath

IMAGE_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha")
_SEGMENTATION = ".seg.nrrd"  # of 3D Slicer
SUPPORTED = f"Supported are {', '.join(IMAGE_SUFFIXES)} and folders with one DICOM series."

_UNREAD_SUFFIXES = frozenset(
    (
        *(".mhd", ".nhdr", ".hdr", ".img", ".mgh", ".mgz", ".mnc", ".par", ".rec", ".vtk", ".vti"),
        *(".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".npy", ".npz", ".h5", ".hdf5", ".mat"),
        *(".dcm", ".ima", ".gz", ".bz2", ".zst", ".zip"),
    )
)


def suffix_of(path: PurePath) -> str:
    """Returns the image suffix of a file in lower case; empty if the format is not read."""
    name = path.name.lower()
    return next((suffix for suffix in IMAGE_SUFFIXES if name.endswith(suffix)), "")


def file_stem(path: PurePath) -> str:
    """Returns the file name without its image suffix.

    Names are composed (NFC), so that `é` is the same in files of all operating systems.
    """
    return unicodedata.normalize("NFC", path.name[: len(path.name) - len(suffix_of(path))])


def is_segmentation(path: PurePath) -> bool:
    """Returns whether the name is that of a segmentation of 3D Slicer, `<case>.seg.nrrd`."""
    return path.name.lower().endswith(_SEGMENTATION)


def case_name(path: PurePath) -> str:
    """Returns the file name without its image suffix, and without the `.seg` of segmentations.

    Names are composed (NFC), so that `é` is the same in files of all operating systems.

    Examples:
        >>> from pathlib import Path
        >>> case_name(Path("case_0000.nii.gz"))
        'case_0000'
        >>> case_name(Path("case.seg.nrrd"))
        'case'
    """
    return file_stem(path)[: -len(".seg")] if is_segmentation(path) else file_stem(path)


def is_image(path: Path) -> bool:
    """Returns whether this is a file with an image suffix, or a folder with DICOM files."""
    return is_series(path) if path.is_dir() else bool(suffix_of(path))


def is_unread_image(path: Path) -> bool:
    """Returns whether this seems to be an image of a format, or in a place, that is not read.

    Args:
        path: Entry of a folder of images. A subfolder counts unless it is empty or a DICOM series.

    Examples:
        >>> from pathlib import Path
        >>> is_unread_image(Path("case_0000.mhd")), is_unread_image(Path("notes.txt"))
        (True, False)
    """
    if path.is_dir():
        return not is_series(path) and any(path.iterdir())
    return not suffix_of(path) and path.suffix.lower() in _UNREAD_SUFFIXES
