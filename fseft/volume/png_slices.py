"""Labels that come as one picture per slice of a DICOM series, as those of CHAOS do."""

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
    """Whether this is a folder of pictures."""
    return path.is_dir() and any(file.suffix == SUFFIX for file in path.iterdir())


def read_png_labels(case: Case, folder: Path, image: Volume) -> Volume:
    """Read pictures as a label map on the grid of the case's image.

    The n-th picture belongs to the n-th file of the series, both in the order of their names, wherever that lies.

    Returns:
        The grey values (1, z, y, x), uint8.

    Raises:
        FseftError: There are not as many pictures as slices, or one is of another size.
    """
    pictures = sorted(file for file in folder.iterdir() if file.suffix == SUFFIX)
    placed = slice_files(case.images[0])  # in the order of the array
    if len(pictures) != len(placed):
        cause = f"holds {len(pictures)} pictures, its series {len(placed)} slices"
        raise FseftError(cause, case=case.name, file=folder, hint="Complete or remove them.")
    labels = np.zeros(image.array.shape[-3:], np.uint8)
    for picture, name in zip(pictures, sorted(placed), strict=True):
        with simpleitk() as sitk:
            grey = sitk.GetArrayFromImage(sitk.ReadImage(str(picture)))
        if grey.shape != labels.shape[1:]:
            cause = f"is a picture {grey.shape}, its slice is {labels.shape[1:]}"
            raise FseftError(
                cause, case=case.name, file=picture, hint="Give one grey value per pixel."
            )
        labels[placed.index(name)] = grey
    return Volume(labels[np.newaxis], image.geometry)
