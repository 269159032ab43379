"""Labels in the form of one binary mask per structure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fseft.errors import FseftError
from fseft.volume._logging import warn_once
from fseft.volume.geometry import geometry_mismatch
from fseft.volume.image import Volume, read_labels
from fseft.volume.label_values import translate

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from fseft.schemas import Case
    from fseft.volume.geometry import Array, Geometry


def label_files(case: Case) -> tuple[Path, ...]:
    """Returns the label map of a case, or all its masks; empty for an unlabelled case."""
    if isinstance(case.label, dict):
        return tuple(case.label.values())
    return () if case.label is None else (case.label,)


def read_masks(paths: Mapping[int, Path], *, case: str | None = None) -> Volume:
    """Reads the masks of a case as one label map; where they overlap, the smaller structure wins.

    Args:
        paths: Value in the label map -> file of its mask, nonzero inside; at least one.
        case: Case identifier, for error messages.

    Returns:
        The labels (1, z, y, x) in the smallest unsigned integer type.

    Raises:
        FseftError: A file is not a label map, or the masks are on different grids.
    """
    first = read_labels(next(iter(paths.values())), case=case)
    numbers = np.zeros(first.array.shape, np.min_scalar_type(len(paths)))
    voxels = numbers.reshape(-1)
    sizes = np.zeros(len(paths) + 1, np.int64)
    for number, path in enumerate(paths.values(), start=1):
        inside = _voxels_inside(path, first.geometry, case)
        sizes[number] = len(inside)
        previous = voxels[inside]
        is_smaller = (previous == 0) | (sizes[previous] > len(inside))
        voxels[inside[is_smaller]] = number
    labels = translate(numbers, dict(enumerate(paths, start=1)), np.min_scalar_type(max(paths)))
    return Volume(labels, first.geometry)


def _voxels_inside(path: Path, geometry: Geometry, case: str | None) -> Array:
    """Reads a mask on a grid, and returns the flat indices of its voxels."""
    mask = read_labels(path, case=case)
    if difference := geometry_mismatch(mask.geometry, geometry):
        cause = f"is not on the grid of the other masks: {difference}"
        raise FseftError(cause, hint="Resample the masks to one grid.", case=case, file=path)
    inside = np.flatnonzero(mask.array)
    _warn_of_several_values(path, mask.array.reshape(-1)[inside])
    return inside


def _warn_of_several_values(path: Path, values: Array) -> None:
    """Names a mask that numbers lesions, or is a label map of several structures."""
    if values.size and values.min() != values.max():
        warn_once(
            f"{path}: is read as the mask of one structure, although it has several values "
            f"({values.min()} to {values.max()})"
        )
