"""Connected components of label maps: largest components, small islands and holes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fseft.volume.label_values import label_boxes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fseft.volume.geometry import Array

ALL = "all"
"""Stands for all structures."""


@dataclass(frozen=True)
class Cleaning:
    """Which voxels are removed from, and added to, the structures of a label map.

    Attributes:
        largest_component: Structures that keep their largest component only; `("all",)` for all.
        min_volume_ml: Components of less than this volume are removed.
        fill_holes: Whether enclosed background becomes a part of the structure around it.
    """

    largest_component: tuple[str, ...] = ()
    min_volume_ml: float = 0.0
    fill_holes: bool = False

    def __bool__(self) -> bool:
        return self != Cleaning()

    def keeps_largest(self, structure: str) -> bool:
        """Returns whether a structure keeps its largest component only."""
        return ALL in self.largest_component or structure in self.largest_component


def clean_labels(
    labels: Array, structures: Mapping[str, int], cleaning: Cleaning, voxel_volume_mm3: float
) -> None:
    """Cleans the structures of a label map in place.

    Voxels that are removed become background. Components are 26-connected, holes are 6-connected
    background that does not reach the surface of the structure's bounding box; a hole within
    several structures becomes a part of the smallest. Holes are filled last.

    Args:
        labels: (i, j, k), integers.
        structures: Structure -> voxel value.
        cleaning: What to clean.
        voxel_volume_mm3: Volume of a voxel.

    Examples:
        >>> labels = np.array([[[1, 1, 0, 1]]])
        >>> clean_labels(labels, {"liver": 1}, Cleaning(largest_component=("liver",)), 1.0)
        >>> labels.tolist()
        [[[1, 1, 0, 0]]]
    """
    min_voxels = 1000 * cleaning.min_volume_ml / voxel_volume_mm3
    boxes = label_boxes(labels)
    found = {name: value for name, value in structures.items() if value in boxes}
    sizes = {}
    for name, value in found.items():
        part = labels[boxes[value]]
        mask = part == value
        kept = _kept(mask, min_voxels, largest=cleaning.keeps_largest(name))
        part[mask & ~kept] = 0
        sizes[value] = int(np.count_nonzero(kept))
    for value in sorted(sizes, key=sizes.__getitem__) if cleaning.fill_holes else ():
        part = labels[boxes[value]]
        part[_holes(part == value) & (part == 0)] = value


def _kept(mask: Array, min_voxels: float, *, largest: bool) -> Array:
    """Returns the mask without small components, or with its largest component only."""
    from scipy.ndimage import label

    if not largest and min_voxels <= 1:
        return mask
    components, _ = label(mask, np.ones((3, 3, 3)))
    sizes = np.bincount(components.ravel())
    is_kept = sizes >= min_voxels
    is_kept[0] = False
    if largest and len(sizes) > 1:
        is_kept &= np.arange(len(sizes)) == 1 + sizes[1:].argmax()
    kept: Array = is_kept[components]
    return kept


def _holes(mask: Array) -> Array:
    """Returns the voxels outside a mask that are not connected with the faces of the array."""
    from scipy.ndimage import label

    components, count = label(~mask)
    is_hole = np.ones(count + 1, bool)
    is_hole[0] = False
    for axis in range(3):
        for side in (0, -1):
            is_hole[np.take(components, side, axis)] = False
    holes: Array = is_hole[components]
    return holes
