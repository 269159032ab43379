"""The files of a case: its image, its labels as they count, and a key of their content."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.errors import FseftError
from fseft.schemas import FULLY_ANNOTATED
from fseft.volume.annotation import mark_unannotated
from fseft.volume.geometry import geometry_mismatch, reorient
from fseft.volume.image import Volume, content_digest, read_labels, read_volume
from fseft.volume.masks import label_files, read_masks
from fseft.volume.png_slices import is_png_folder, read_png_labels
from fseft.workspace import digest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fseft.schemas import Case
    from fseft.volume.geometry import Array


def case_content(case: Case) -> str:
    """Returns a key of the content of all files of a case, and of which voxels count."""
    values = list(case.label) if isinstance(case.label, dict) else []
    files = content_digest([*case.images, *label_files(case)])
    rules = []
    if case.annotation != FULLY_ANNOTATED:
        rules.append(case.annotation.model_dump(mode="json"))
    return digest(len(case.images), files, *values, *rules)


def check_unchanged(case: Case, content: str) -> None:
    """Checks, after reading the files of `case`, that their key is still `content`.

    Raises:
        FseftError: A file has changed since.
    """
    if case_content(case) != content:
        cause = "a file has changed while it was read"
        raise FseftError(cause, case=case.name, file=case.images[0], hint="Run again.")


def read_case(case: Case, channels: Sequence[str]) -> Volume:
    """Reads the image of a case with all its channels.

    Args:
        case: Case with one file per channel, or one file for all.
        channels: Names of the channels of the dataset.
    """
    source: Path | tuple[Path, ...] = case.images
    if len(case.images) == 1:
        source = case.images[0]
    return read_volume(source, channels=len(channels), case=case.name)


def read_case_labels(case: Case, volume: Volume) -> Volume:
    """Reads the labels of a case on the grid of its image.

    Labels that are stored with permuted or flipped axes, as converters from DICOM write them, are
    reoriented without loss.

    Args:
        case: Case with a label map, masks or PNG slices.
        volume: Image of the case, as read.

    Returns:
        The labels (1, i, j, k) on the geometry of `volume`; `UNANNOTATED` where they do not count.

    Raises:
        FseftError: The case is unlabelled, or its labels are broken or on another grid.
    """
    if case.label is None:
        raise FseftError("has no label", case=case.name, hint="Add a label, or exclude the case.")
    if isinstance(case.label, dict):
        labels = read_masks(case.label, case=case.name)
    elif is_png_folder(case.label):
        labels = read_png_labels(case, case.label, volume)
    else:
        labels = read_labels(case.label, case=case.name)
    array, geometry = reorient(labels.array, labels.geometry, volume.geometry.orientation)
    if difference := geometry_mismatch(volume.geometry, geometry):
        image = case.images[0].name
        raise FseftError(
            f"the image {image} and its label are not on the same grid: {difference}",
            case=case.name,
            file=label_files(case)[0],
            hint="Draw or resample the label on the image's grid, or repair the wrong header.",
        )
    return Volume(_as_annotated(array, case), volume.geometry)


def _as_annotated(labels: Array, case: Case) -> Array:
    """Marks the voxels that are not annotated, and names the case in errors."""
    try:
        return mark_unannotated(labels, case.annotation)
    except FseftError as error:
        raise error.located(case=case.name, file=label_files(case)[0]) from error
