"""Volume, intensity and position of the structures of a segmentation."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import numpy as np

from fseft.schemas import Document, FrozenModel
from fseft.volume.label_values import label_boxes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fseft.volume.image import Volume
    from fseft.volume.segmentation import Segmentation


_FIRST = ("case", "structure", "volume_ml", "mean", "sd")
_LAST = (
    *("centroid_r_mm", "centroid_a_mm", "centroid_s_mm"),
    *("box_start_x", "box_start_y", "box_start_z", "box_stop_x", "box_stop_y", "box_stop_z"),
    "at_border",
)
"""Columns before and after those of further channels."""


class StructureStatistics(FrozenModel):
    """Measurements of one structure; all but the volume are empty for a structure without voxels.

    Attributes:
        volume_ml: Volume in millilitres.
        mean: Mean intensity of each channel, in the unit of the file (HU in CT).
        sd: Standard deviation of the intensity of each channel, over the voxels.
        centroid_ras_mm: Mean position in mm: to the right, anterior, superior.
        box_start: First voxel of the bounding box along x, y and z of the file, from 0.
        box_stop: Voxel after the last one along x, y and z of the file.
        at_border: Whether it touches the border of the image, and may continue beyond.
    """

    volume_ml: float
    mean: tuple[float, ...] = ()
    sd: tuple[float, ...] = ()
    centroid_ras_mm: tuple[float, float, float] | None = None
    box_start: tuple[int, int, int] | None = None
    box_stop: tuple[int, int, int] | None = None
    at_border: bool = False


class CaseStatistics(Document):
    """Measurements of the structures of a case, by name."""

    case: str
    structures: dict[str, StructureStatistics]


def measure_structures(segmentation: Segmentation, volume: Volume) -> CaseStatistics:
    """Measures every structure of a segmentation.

    Args:
        segmentation: The segmentation.
        volume: Its scan, as read.
    """
    boxes = label_boxes(segmentation.labels)
    structures = {
        name: _measure(segmentation, volume, value, boxes[value])
        if value in boxes
        else StructureStatistics(volume_ml=0.0)
        for name, value in segmentation.structures.items()
    }
    return CaseStatistics(case=segmentation.case, structures=structures)


def _measure(
    segmentation: Segmentation, volume: Volume, value: int, box: tuple[slice, ...]
) -> StructureStatistics:
    geometry = segmentation.geometry
    mask = segmentation.labels[box] == value
    intensities = volume.array[(slice(None), *box)][:, mask].astype(np.float64)
    start = np.array([side.start for side in box])
    stop = np.array([side.stop for side in box])
    center = [*(np.argwhere(mask).mean(0) + start), 1.0]
    left, posterior, superior, _ = (geometry.affine @ center).tolist()
    return StructureStatistics(
        volume_ml=np.count_nonzero(mask) * geometry.voxel_volume_mm3 / 1000,
        mean=tuple(intensities.mean(1).tolist()),
        sd=tuple(intensities.std(1).tolist()),
        centroid_ras_mm=(-left, -posterior, superior),
        box_start=tuple(start[::-1].tolist()),
        box_stop=tuple(stop[::-1].tolist()),
        at_border=not start.all() or bool((stop == geometry.shape).any()),
    )


def statistics_csv(cases: Iterable[CaseStatistics]) -> str:
    """Returns one line per case and structure, with a header.

    Args:
        cases: Statistics of cases with equal numbers of channels. A second channel has the columns
            `mean_1` and `sd_1`, and so on.
    """
    rows = [
        {"case": case.case, "structure": name, **_row(item)}
        for case in cases
        for name, item in case.structures.items()
    ]
    columns = dict.fromkeys([*_FIRST, *(key for row in rows for key in row), *_LAST])
    order = [*(key for key in columns if key not in _LAST), *_LAST]
    lines = io.StringIO()
    writer = csv.DictWriter(lines, order, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return lines.getvalue()


def _row(item: StructureStatistics) -> dict[str, str | int]:
    """Returns the cells of a structure; those that are undefined are left out."""
    row: dict[str, str | int] = {"volume_ml": f"{item.volume_ml:.6g}"}
    for channel, mean in enumerate(item.mean):
        suffix = f"_{channel}" if channel else ""
        row[f"mean{suffix}"] = f"{mean:.6g}"
        row[f"sd{suffix}"] = f"{item.sd[channel]:.6g}"
    if item.centroid_ras_mm and item.box_start and item.box_stop:
        positions = [f"{mm:.2f}" for mm in item.centroid_ras_mm]
        cells: list[str | int] = [*positions, *item.box_start, *item.box_stop]
        row |= dict(zip(_LAST, cells, strict=False))
    row["at_border"] = int(item.at_border)
    return row
