"""The voxels of a predicted case: scan, label map and reference on one grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fseft.errors import FseftError
from fseft.volume.annotation import is_annotated, mark_unannotated
from fseft.volume.geometry import geometry_mismatch, reorient
from fseft.volume.image import read_labels, read_volume
from fseft.volume.label_values import translate

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from fseft.result_pages.cases import CaseResult
    from fseft.volume.geometry import Geometry

    Labels = NDArray[np.integer[Any]]

_MISSING = "Pass the folder of the scans (--scans), or leave out the pictures (--no-pictures)."


@dataclass(frozen=True, eq=False)
class CaseArrays:
    """Voxels (i, j, k) in orientation RAS.

    Attributes:
        image: Intensities of the first channel.
        labels: The prediction.
        geometry: The grid of both.
        compared: The prediction of scored structures, where the reference counts.
        reference: The reference, with the voxel values of the prediction; None without one.
    """

    image: NDArray[Any]
    labels: Labels
    geometry: Geometry
    compared: Labels
    reference: Labels | None = None

    @property
    def chosen_by(self) -> Labels:
        """The label map whose largest cross-sections are shown."""
        if self.reference is None or not self.reference.any():
            return self.labels
        return self.reference


def read_arrays(case: CaseResult) -> CaseArrays:
    """Reads the files of a case.

    Raises:
        FseftError: A file is missing, damaged, or on another grid.
    """
    if not case.scan:
        raise FseftError("the files of the scan are unknown", case=case.name, hint=_MISSING)
    for file in case.scan:
        if not file.exists():
            raise FseftError("the scan does not exist", case=case.name, file=file, hint=_MISSING)
    volume = read_volume(case.scan, case=case.name)
    image, geometry = reorient(volume.array, volume.geometry, "RAS")
    labels = _read_on_grid(case, case.prediction, geometry)
    if case.reference is None:
        return CaseArrays(image[0], labels, geometry, labels)
    reference, counted = _read_reference(case, case.reference, geometry)
    scored = {value: value for name, value in case.labels.items() if name in case.scores}
    compared = translate(labels, scored, labels.dtype) * counted
    return CaseArrays(image[0], labels, geometry, compared, reference)


def _read_on_grid(case: CaseResult, path: Path, geometry: Geometry) -> Labels:
    stored = read_labels(path, case=case.name)
    array, grid = reorient(stored.array, stored.geometry, "RAS")
    if difference := geometry_mismatch(grid, geometry):
        cause = f"is not on the grid of the scan: {difference}"
        hint = "Pass the folder with the scan that was segmented (--scans)."
        raise FseftError(cause, case=case.name, file=path, hint=hint)
    labels: Labels = array[0]
    return labels


def _read_reference(
    case: CaseResult, path: Path, geometry: Geometry
) -> tuple[Labels, NDArray[np.bool_]]:
    """Reads the reference with the voxel values of the prediction, and which voxels count."""
    if not path.is_file():
        hint = "Pass the folder of the labels (--labels)."
        raise FseftError("the reference does not exist", case=case.name, file=path, hint=hint)
    values = case.files.values if case.files else {}
    stored = _read_on_grid(case, path, geometry)
    if case.files:
        stored = mark_unannotated(stored, case.files.annotation)
    counted = is_annotated(stored)
    scored = [name for name in values if name in case.labels and name in case.scores]
    new_values: dict[int, int] = {}
    # Regions come before those that are a part of them, as in a prediction.
    for name in sorted(scored, key=lambda name: -len(values[name])):
        new_values |= dict.fromkeys(values[name], case.labels[name])
    dtype = np.min_scalar_type(max(new_values.values(), default=0))
    return translate(stored, new_values, dtype) * counted, counted
