"""The three planes through the largest cross-sections of a segmentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fseft.reporting.figures import best_slice, draw_slice
from fseft.volume.label_values import consecutive

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from fseft.reporting.figures import RGB
    from fseft.volume.geometry import Geometry

    Labels = NDArray[np.integer[Any]]

_NAMES = {2: "axial", 1: "coronal", 0: "sagittal"}
_DIRECTIONS = {2: "SI", 1: "AP", 0: "RL"}
"""Letters of positive and negative positions along each axis."""
_LPS_TO_RAS = (-1.0, -1.0, 1.0)
_WHITE = (255, 255, 255)


@dataclass(frozen=True)
class Plane:
    """A picture of a slice.

    Attributes:
        title: Plane, number of the slice from 1, and its position, as "axial, 7 of 36 (S 12 mm)".
        picture: Picture of shape (height, width, 3).
    """

    title: str
    picture: RGB


def draw_planes(
    image: NDArray[Any],
    labels: Labels,
    geometry: Geometry,
    colours: Mapping[int, Sequence[int]],
    *,
    reference: Labels | None = None,
    chosen_by: Labels | None = None,
    window: tuple[float, float] | None = None,
    size: int = 420,
) -> list[Plane]:
    """Draws the axial, the coronal and the sagittal slice that show the structures best.

    Args:
        image: Intensities (i, j, k) in orientation RAS.
        labels: Label map of the same shape.
        geometry: Their grid.
        colours: Label value -> red, green and blue.
        reference: Label map to compare with.
        chosen_by: Label map whose cross-sections choose the slices. Default: `labels`.
        window: Intensities shown as black and white. Default: percentiles of each slice.
        size: Length of the longer side of each picture in pixels.
    """
    numbers, values = consecutive(labels)
    palette = np.array([colours.get(value, _WHITE) for value in values] or [_WHITE], np.uint8)
    planes = []
    for axis in _NAMES:
        index = best_slice(labels if chosen_by is None else chosen_by, axis)
        picture = draw_slice(
            image,
            numbers if reference is None else labels,
            geometry.spacing_mm,
            axis=axis,
            index=index,
            window=window,
            palette=palette,
            reference=reference,
            marks=True,
            size=size,
        )
        planes.append(Plane(_title(geometry, axis, index), picture))
    return planes


def _title(geometry: Geometry, axis: int, index: int) -> str:
    """Names a slice with the position of its middle."""
    middle = [(length - 1) / 2 for length in geometry.shape]
    middle[axis] = index
    position_mm = geometry.affine[axis] @ [*middle, 1.0]
    position_mm *= _LPS_TO_RAS[axis]
    is_negative = bool(position_mm < 0)
    letter = _DIRECTIONS[axis][is_negative]
    place = f"{letter} {abs(position_mm):.0f} mm"
    number, count = index + 1, geometry.shape[axis]
    return f"{_NAMES[axis]}, {number} of {count} ({place})"
