"""The picture of a segmentation."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from fseft.reporting.preview import LegendEntry, draw_preview
from fseft.volume.geometry import Geometry

RED, GREEN = (255, 0, 0), (0, 255, 0)
LEGEND = [LegendEntry("liver", 3, RED, "2 ml"), LegendEntry("spleen", 9, GREEN)]


def grid(shape, spacing_mm=(1, 1, 1)):
    """A grid in orientation RAS."""
    return Geometry(shape, np.diag([*np.multiply(spacing_mm, (-1, -1, 1)), 1.0]))


def picture(labels, spacing_mm=(1, 1, 1), legend=LEGEND):
    image = np.random.default_rng(0).normal(0, 50, labels.shape)
    png = draw_preview(
        image, labels, grid(labels.shape, spacing_mm), legend, title="case", window=(-100, 100)
    )
    return np.asarray(Image.open(io.BytesIO(png)))


def blob():
    labels = np.zeros((20, 24, 10), np.uint8)
    labels[5:12, 6:14, 3:7] = 3
    return labels


def test_structures_have_the_colours_of_the_legend():
    rgb = picture(blob())
    assert (rgb == RED).all(2).sum() > 300
    assert 0 < (rgb == GREEN).all(2).sum() < 120  # the frame of a structure that was not found


def test_pixels_are_square_in_millimetres():
    thin, thick = picture(blob()), picture(blob(), (1, 1, 3))
    assert thick.shape[0] != thin.shape[0] or thick.shape[1] != thin.shape[1]


def test_an_empty_segmentation_and_many_structures_are_drawn():
    many = [LegendEntry(f"structure {number}", number, GREEN) for number in range(1, 105)]
    rgb = picture(np.zeros((8, 8, 8), np.uint8), legend=many)
    assert rgb.shape[0] > picture(blob()).shape[0]
