"""Text, edge letters and a scale bar on pictures."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from fseft.escaping import printable

if TYPE_CHECKING:
    from fseft.reporting.figures import RGB

WHITE = (255, 255, 255)
_FONT = 15  # pixels
_MARGIN = 6  # pixels between marks and the rim of the picture
_LONGEST_BAR = 0.4  # of the width of the picture


def write_text(
    draw: Any,
    place: tuple[float, float],
    text: str,
    colour: tuple[int, int, int] = WHITE,
    anchor: str = "la",
) -> None:
    """Writes text with a black rim, which is readable on bright tissue too.

    Args:
        draw: An `ImageDraw` of Pillow.
        place: Horizontal and vertical coordinate in pixels.
        text: The text; control characters are made visible.
        colour: Red, green and blue.
        anchor: Point of the text at the place, as in Pillow: "la" for the top left corner.
    """
    draw.text(
        place,
        printable(text),
        fill=colour,
        font=font(),
        anchor=anchor,
        stroke_width=2,
        stroke_fill=(0, 0, 0),
    )


def font() -> Any:
    """Returns the font of all pictures."""
    from PIL import ImageFont

    return ImageFont.load_default(_FONT)


def draw_marks(picture: RGB, edges: str, pixel_mm: float) -> RGB:
    """Writes the letters of the directions at the edges, and draws a scale bar.

    Args:
        picture: Picture of shape (height, width, 3).
        edges: Letters of the left, right, upper and lower edge, such as "RLAP".
        pixel_mm: Side of a pixel in mm.

    Returns:
        A new picture of the same shape.
    """
    from PIL import Image, ImageDraw

    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    width, height = image.size
    near, right, low = _MARGIN, width - _MARGIN, height - _MARGIN
    places = ((near, height / 2), (right, height / 2), (width / 2, near), (width / 2, low))
    for letter, place, anchor in zip(edges, places, ("lm", "rm", "ma", "md"), strict=True):
        write_text(draw, place, letter, anchor=anchor)
    length_mm = bar_length(_LONGEST_BAR * width * pixel_mm)
    left = right - length_mm / pixel_mm
    draw.line([left, low, right, low], fill=(0, 0, 0), width=5)
    draw.line([left, low, right, low], fill=WHITE, width=3)
    write_text(draw, (right, low - 4), f"{length_mm:g} mm", anchor="rd")
    return np.asarray(image)


def bar_length(longest_mm: float) -> float:
    """Returns the largest of 1, 2 and 5 times a power of ten that is not above a length.

    Examples:
        >>> bar_length(73.0), bar_length(0.3)
        (50.0, 0.2)
    """
    power = 10.0 ** math.floor(math.log10(longest_mm))
    length = power
    for factor in (2, 5):
        if factor * power <= longest_mm:
            length = factor * power
    return round(length, 12)
