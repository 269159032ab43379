"""Draws `demo.png` from the folder of `fseft demo`: `python docs/draw_demo.py demo`.

The first unseen phantom in an axial and a coronal slice: the reference, then each method.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fseft.demo.run import METHODS
from fseft.reporting.figures import (
    WINDOW_HU,
    best_slice,
    distinct_colours,
    draw_slice,
    encode_png,
    side_by_side,
)
from fseft.reporting.marks import write_text
from fseft.volume.geometry import reorient
from fseft.volume.image import read_labels, read_volume

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

PICTURE = Path(__file__).with_name("demo.png")
WIDTH, GAP, ROW, SWATCH = 190, 6, 26, 14  # pixels
CORONAL, AXIAL = 1, 2


def draw(folder: Path) -> bytes:
    """Returns the picture of a demonstration as PNG.

    Args:
        folder: The folder of `fseft demo`.
    """
    (data,) = (folder / "data").iterdir()
    truth = min((data / "labelsTs").iterdir())
    scan = data / "imagesTs" / truth.name.replace(".nii.gz", "_0000.nii.gz")
    image, geometry = _upright(read_volume([scan]))
    files = [truth, *(folder / "predictions" / method / truth.name for method in METHODS)]
    maps = [_upright(read_labels(file))[0] for file in files]
    names = json.loads((data / "dataset.json").read_text(encoding="utf-8"))["labels"]
    rows = []
    for axis in (AXIAL, CORONAL):
        index = best_slice(maps[0], axis)
        slices = [
            draw_slice(
                image,
                labels,
                geometry.spacing_mm,
                axis=axis,
                index=index,
                window=WINDOW_HU,
                size=WIDTH,
            )
            for labels in maps
        ]
        rows.append(side_by_side([_padded(picture, WIDTH) for picture in slices], GAP))
    shown = {name: value for name, value in names.items() if value and (maps[0] == value).any()}
    width = rows[0].shape[1]
    parts = [_titles(("reference", *METHODS), width), *rows, _legend(shown, width)]
    return encode_png(np.concatenate(parts))


def _upright(volume: Any) -> tuple[NDArray[Any], Any]:
    array, geometry = reorient(volume.array, volume.geometry, "RAS")
    return array[0], geometry


def _padded(picture: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    missing = width - picture.shape[1]
    return np.pad(picture, ((0, GAP), (missing // 2, missing - missing // 2), (0, 0)))


def _titles(titles: Sequence[str], width: int) -> NDArray[np.uint8]:
    from PIL import Image, ImageDraw

    canvas = Image.new("RGB", (width, ROW))
    for number, title in enumerate(titles):
        place = ((number + 0.5) * width / len(titles), 5)
        write_text(ImageDraw.Draw(canvas), place, title, anchor="ma")
    return np.asarray(canvas)


def _legend(values: Mapping[str, int], width: int) -> NDArray[np.uint8]:
    from PIL import Image, ImageDraw

    canvas = Image.new("RGB", (width, ROW))
    canvas_draw, column = ImageDraw.Draw(canvas), width / len(values)
    colours = distinct_colours(max(values.values()))
    for number, (name, value) in enumerate(values.items()):
        left = number * column + GAP
        colour = tuple(colours[value - 1].tolist())
        canvas_draw.rectangle([left, 6, left + SWATCH, 6 + SWATCH], fill=colour)
        write_text(canvas_draw, (left + SWATCH + GAP, 5), name)
    return np.asarray(canvas)


if __name__ == "__main__":
    PICTURE.write_bytes(draw(Path(sys.argv[1])))
