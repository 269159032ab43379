"""Labels in the form of one PNG per slice of a DICOM series, as in CHAOS."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fseft.errors import FseftError
from fseft.volume.dicom import slice_files
from fseft.volume.image import Volume
from fseft.volume.nrrd_mha import simpleitk

if TYPE_CHECKING:
    from pathlib import Path

    from fseft.schemas import Case

SUFFIX = ".png"


def is_png_folder(path: Path) -> bool:
    """Returns whether this is a folder with PNG files."""
    return path.is_dir() and any(file.suffix == SUFFIX for file in path.iterdir())


def read_png_labels(case: Case, folder: Path, image: Volume) -> Volume:
    """Reads PNG files as a label map on the grid of the case's image.

    The n-th PNG belongs to the n-th file of the series, both sorted by name; the slice's position
    in the volume may differ.

    Args:
        case: Case whose image is a DICOM series.
        folder: Folder of the PNG files.
        image: Image of the case, as read.

    Returns:
        The grey values (1, z, y, x), uint8.

    Raises:
        FseftError: The numbers of PNG files and slices differ, or a PNG has another size.
    """
    pictures = sorted(file for file in folder.iterdir() if file.suffix == SUFFIX)
    slices = slice_files(case.images[0])  # in the order of the array
    if len(pictures) != len(slices):
        cause = f"contains {len(pictures)} PNG files, its series {len(slices)} slices"
        raise FseftError(cause, case=case.name, file=folder, hint="Complete or remove them.")
    labels = np.zeros(image.array.shape[-3:], np.uint8)
    for picture, name in zip(pictures, sorted(slices), strict=True):
        with simpleitk() as sitk:
            grey = sitk.GetArrayFromImage(sitk.ReadImage(str(picture)))
        if grey.shape != labels.shape[1:]:
            cause = f"has the shape {grey.shape}, its slice {labels.shape[1:]}"
            hint = "Give one grey value per pixel."
            raise FseftError(cause, case=case.name, file=picture, hint=hint)
        labels[slices.index(name)] = grey
    return Volume(labels[np.newaxis], image.geometry)
