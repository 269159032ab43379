"""A picture of a segmentation: three planes through its largest cross-sections, and a legend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fseft.escaping import printable
from fseft.reporting.figures import best_slice, draw_slice, encode_png, side_by_side
from fseft.volume.label_values import consecutive

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from fseft.reporting.figures import RGB

_PLANES = {2: "axial", 1: "coronal", 0: "sagittal"}
_LEFT_EDGE = {2: "right", 1: "right", 0: "anterior"}
_SIZE, _GAP = 420, 8  # pixels: the longer side of a plane, and the distance of two
_ROW, _SWATCH, _FONT = 26, 16, 15  # pixels of the legend
_WHITE, _GREY = (255, 255, 255), (170, 170, 170)


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
    spacing_mm: Sequence[float],
    legend: Sequence[LegendEntry],
    *,
    title: str,
    window: tuple[float, float] | None = None,
) -> bytes:
    """Draws an axial, a coronal and a sagittal slice side by side, with a legend below.

    Args:
        image: Intensities (i, j, k) in orientation RAS.
        labels: Label map of the same shape.
        spacing_mm: Voxel size along i, j, k.
        legend: The structures; those without a voxel are listed as not found.
        title: Text above the planes.
        window: Intensities shown as black and white. Default: percentiles of the slices.

    Returns:
        A PNG.
    """
    numbers, values = consecutive(labels)
    colours = {entry.value: entry.colour for entry in legend}
    palette = np.array([colours.get(value, _WHITE) for value in values] or [_WHITE], np.uint8)
    planes = []
    for axis in _PLANES:
        index = best_slice(labels, axis)
        picture = draw_slice(
            image,
            numbers,
            spacing_mm,
            axis=axis,
            index=index,
            window=window,
            palette=palette,
            size=_SIZE,
        )
        caption = f"{_PLANES[axis]} {index}, {_LEFT_EDGE[axis]} on the left"
        planes.append(np.concatenate([_heading(caption, picture.shape[1]), picture]))
    body = side_by_side(planes, _GAP)
    present = set(values)
    width = body.shape[1]
    parts = [_heading(title, width), body, _legend(legend, present, width)]
    return encode_png(np.concatenate(parts))


def _heading(title: str, width: int) -> RGB:
    from PIL import Image, ImageDraw

    canvas = Image.new("RGB", (width, _ROW + 4))
    _text(ImageDraw.Draw(canvas), (6, 5), title, _WHITE)
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

    draw, font = ImageDraw.Draw(Image.new("RGB", (1, 1))), _font()
    lengths = [draw.textlength(printable(text), font=font) for text in texts]
    widest = max(lengths, default=0) + 3 * _SWATCH
    return max(1, int(width // widest))


def _draw_entry(
    draw: Any, corner: tuple[int, int], entry: LegendEntry, text: str, *, is_present: bool
) -> None:
    x, y = corner
    box = (x, y, x + _SWATCH, y + _SWATCH)
    fill, text_colour = (entry.colour, _WHITE) if is_present else (None, _GREY)
    draw.rectangle(box, fill=fill, outline=entry.colour)
    _text(draw, (x + 1.5 * _SWATCH, y), text, text_colour)


def _text(draw: Any, place: tuple[float, float], text: str, colour: tuple[int, int, int]) -> None:
    """Writes text with a black rim, which is readable on bright tissue too."""
    draw.text(
        place, printable(text), fill=colour, font=_font(), stroke_width=2, stroke_fill=(0, 0, 0)
    )


def _font() -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(_FONT)


def volume_notes(labels: NDArray[np.integer[Any]], voxel_volume_mm3: float) -> Mapping[int, str]:
    """Returns the volume of each label value that occurs, as text.

    Args:
        labels: Label map.
        voxel_volume_mm3: Volume of a voxel.
    """
    numbers, values = consecutive(labels)
    counts = np.bincount(numbers.ravel())[1:]
    return {
        value: f"{count * voxel_volume_mm3 / 1000:.3g} ml"
        for value, count in zip(values, counts.tolist(), strict=True)
    }
