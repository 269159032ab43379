"""A finished segmentation of a scan, as file formats write it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from fseft.volume.geometry import Array, Geometry


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A label map on the grid of its scan, with the names of its structures.

    Attributes:
        case: Name of the case.
        labels: (i, j, k), unsigned integers, 0 for background.
        geometry: Their grid, that of the scan.
        structures: Structure -> voxel value, also of structures without a voxel.
        scan: Files of the scan, one per channel, or the folder of its DICOM series.
        algorithm: What has segmented the scan, such as `lora of phantom-tiny`.
        version: Version of fseft.
    """

    case: str
    labels: Array
    geometry: Geometry
    structures: Mapping[str, int]
    scan: tuple[Path, ...]
    algorithm: str
    version: str

    def mask(self, structure: str) -> Array:
        """Returns the voxels of a structure, bool (i, j, k)."""
        mask: Array = self.labels == self.structures[structure]
        return mask
