"""A picture of a segmentation: three planes through its largest cross-sections, and a legend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fseft.escaping import printable
from fseft.reporting.figures import encode_png, side_by_side
from fseft.reporting.marks import WHITE, font, write_text
from fseft.reporting.planes import draw_planes
from fseft.volume.label_values import label_volumes, present_values

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from fseft.reporting.figures import RGB
    from fseft.volume.geometry import Geometry

_GAP = 8  # pixels between two planes
_ROW, _SWATCH = 26, 16  # pixels of the legend
_GREY = (170, 170, 170)


@dataclass(frozen=True)
class LegendEntry:
    """A structure in the legend.

    Attributes:
        name: Name of the structure.
        value: Its voxel value.
        colour: Red, green and blue.
        note: Text after the name, such as its volume.
    """

    name: str
    value: int
    colour: tuple[int, int, int]
    note: str = ""


def draw_preview(
    image: NDArray[Any],
    labels: NDArray[np.integer[Any]],
    geometry: Geometry,
    legend: Sequence[LegendEntry],
    *,
    title: str,
    window: tuple[float, float] | None = None,
) -> bytes:
    """Draws an axial, a coronal and a sagittal slice side by side, with a legend below.

    Args:
        image: Intensities (i, j, k) in orientation RAS.
        labels: Label map of the same shape.
        geometry: Their grid.
        legend: The structures; those without a voxel are listed as not found.
        title: Text above the planes.
        window: Intensities shown as black and white. Default: percentiles of the slices.

    Returns:
        A PNG.
    """
    colours = {entry.value: entry.colour for entry in legend}
    planes = []
    for plane in draw_planes(image, labels, geometry, colours, window=window):
        heading = _heading(plane.title, plane.picture.shape[1])
        planes.append(np.concatenate([heading, plane.picture]))
    body = side_by_side(planes, _GAP)
    present = set(present_values(labels))
    width = body.shape[1]
    parts = [_heading(title, width), body, _legend(legend, present, width)]
    return encode_png(np.concatenate(parts))


def _heading(title: str, width: int) -> RGB:
    from PIL import Image, ImageDraw

    canvas = Image.new("RGB", (width, _ROW + 4))
    write_text(ImageDraw.Draw(canvas), (6, 5), title)
    return np.asarray(canvas)


def _legend(legend: Sequence[LegendEntry], present: set[int], width: int) -> RGB:
    """Draws the entries in as many columns as fit; structures that were not found are grey."""
    from PIL import Image, ImageDraw

    notes = [entry.note if entry.value in present else "not found" for entry in legend]
    texts = [f"{entry.name}  {note}" for entry, note in zip(legend, notes, strict=True)]
    columns = _num_columns(texts, width)
    rows = max(1, -(-len(texts) // columns))
    canvas = Image.new("RGB", (width, rows * _ROW + 12))
    draw = ImageDraw.Draw(canvas)
    for number, (entry, text) in enumerate(zip(legend, texts, strict=True)):
        column, row = divmod(number, rows)
        corner = (6 + column * (width // columns), 8 + row * _ROW)
        _draw_entry(draw, corner, entry, text, is_present=entry.value in present)
    return np.asarray(canvas)


def _num_columns(texts: Sequence[str], width: int) -> int:
    """Returns how many entries fit into a line."""
    from PIL import Image, ImageDraw

    draw = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    lengths = [draw.textlength(printable(text), font=font()) for text in texts]
    widest = max(lengths, default=0) + 3 * _SWATCH
    return max(1, int(width // widest))


def _draw_entry(
    draw: Any, corner: tuple[int, int], entry: LegendEntry, text: str, *, is_present: bool
) -> None:
    x, y = corner
    box = (x, y, x + _SWATCH, y + _SWATCH)
    fill, text_colour = (entry.colour, WHITE) if is_present else (None, _GREY)
    draw.rectangle(box, fill=fill, outline=entry.colour)
    write_text(draw, (x + 1.5 * _SWATCH, y), text, text_colour)


def volume_notes(labels: NDArray[np.integer[Any]], voxel_volume_mm3: float) -> Mapping[int, str]:
    """Returns the volume of each label value that occurs, as text.

    Args:
        labels: Label map.
        voxel_volume_mm3: Volume of a voxel.
    """
    volumes = label_volumes(labels, voxel_volume_mm3)
    return {value: f"{volume:.3g} ml" for value, volume in volumes.items()}
