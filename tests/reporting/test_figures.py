"""Slices are drawn in radiological orientation, with structures in their colours."""

from __future__ import annotations

import json
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fseft.errors import FseftError
from fseft.reporting.figures import (
    OTHER,
    PREDICTION,
    REFERENCE,
    best_slice,
    distinct_colours,
    draw_slice,
    encode_png,
    side_by_side,
)

COLOURS = distinct_colours(7)


def decode_png(data):
    """Decode a PNG of 8-bit RGB without filters, and verify its checksums."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, start = {}, 8
    while start < len(data):
        (length,) = struct.unpack(">I", data[start : start + 4])
        end = start + 8 + length
        body = data[start + 4 : end]
        (checksum,) = struct.unpack(">I", data[end : end + 4])
        assert checksum == zlib.crc32(body)
        chunks[body[:4]] = body[4:]
        start = end + 4
    header = chunks[b"IHDR"]
    width, height = struct.unpack(">II", header[:8])
    assert header[8:] == bytes([8, 2, 0, 0, 0])
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8)
    rows = rows.reshape(height, 1 + 3 * width)
    assert not rows[:, 0].any()
    return rows[:, 1:].reshape(height, width, 3)


def test_a_comparison_outlines_both_label_maps_and_fills_what_differs():
    reference, prediction = np.zeros((2, 30, 30, 3), int)
    reference[5:15, 5:15, 1], prediction[10:20, 5:15, 1] = 7, 7
    image = np.zeros(reference.shape)
    options = {"axis": 2, "index": 1, "window": (0, 1), "size": 300}
    picture = draw_slice(image, prediction, (1, 1, 1), reference=reference, **options)
    height, width = picture.shape[:2]
    missed, added = np.array(REFERENCE) // 2, np.array(PREDICTION) // 2
    assert (
        abs(picture[height // 2, int(width * 0.85)] - missed) <= 1
    ).all()  # right is on the left
    assert (abs(picture[height // 2, int(width * 0.15)] - added) <= 1).all()
    assert not picture[height // 2, width // 2].any()  # both
    same = draw_slice(image, reference, (1, 1, 1), reference=reference, **options)
    assert {tuple(pixel) for pixel in same.reshape(-1, 3)} == {(0, 0, 0), REFERENCE, PREDICTION}


def test_marks_are_letters_at_the_edges_and_a_bar_of_a_round_length():
    image = np.zeros((40, 40, 3))
    options = {"axis": 2, "index": 1, "window": (0, 1), "size": 400}
    picture = draw_slice(image, None, (2, 2, 2), marks=True, **options)
    assert not draw_slice(image, None, (2, 2, 2), **options).any()
    row = picture[-6]
    assert (row == 255).all(axis=1).sum() == pytest.approx(100, abs=2)  # 20 mm of 80 mm


def has_colour(picture, colour):
    return (picture == colour).all(axis=2)


def centre(picture, colour):
    """Return the mean row and column of a colour, as fractions of the picture."""
    pixels = np.argwhere(has_colour(picture, colour))
    return (pixels.mean(axis=0) + 0.5) / picture.shape[:2]


def ball(shape, middle, radius, spacing=(1.0, 1.0, 1.0)):
    grid = np.moveaxis(np.indices(shape), 0, -1)
    offsets = (grid - middle) * spacing
    return (np.linalg.norm(offsets, axis=-1) <= radius).astype(int)


# ---- PNG

shapes = hnp.array_shapes(min_dims=2, max_dims=2, max_side=9).map(lambda shape: (*shape, 3))


@settings(max_examples=25)
@given(hnp.arrays(np.uint8, shapes))
def test_png_keeps_every_pixel(picture):
    np.testing.assert_array_equal(decode_png(encode_png(picture)), picture)


def test_pictures_are_joined_centred_with_a_gap():
    large = np.full((4, 5, 3), 200, np.uint8)
    small = np.full((2, 3, 3), 100, np.uint8)
    row = side_by_side([large, small], gap=2)
    assert row.shape == (4, 10, 3)
    assert (row[:, :5] == 200).all()
    assert not row[:, 5:7].any()
    assert (row[1:3, 7:] == 100).all()
    assert not row[[0, 3], 7:].any()


def test_colours_are_distinct_and_do_not_depend_on_their_number():
    assert len(np.unique(distinct_colours(21), axis=0)) == 21
    np.testing.assert_array_equal(distinct_colours(40)[:7], COLOURS)


# Machado, Oliveira & Fernandes 2009, https://doi.org/10.1109/TVCG.2009.113, severity 1.
VISIONS = {
    "normal": np.eye(3),
    "protanopia": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
    "deuteranopia": [
        [0.3673, 0.8606, -0.2280],
        [0.2801, 0.6725, 0.0474],
        [-0.0118, 0.0429, 0.9689],
    ],
    "tritanopia": [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]],
}
# Ottosson 2020, https://bottosson.github.io/posts/oklab/.
TO_CONES = [[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.6300]]
TO_OKLAB = [[0.2105, 0.7936, -0.0041], [1.9780, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]]


def seen(colours, vision):
    """Coordinates in OKLab of sRGB colours."""
    srgb = np.asarray(colours) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ np.transpose(VISIONS[vision]), 0, 1)
    return np.cbrt(linear @ np.transpose(TO_CONES)) @ np.transpose(TO_OKLAB)


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize(("count", "least"), [(9, 0.075), (21, 0.05)])
def test_structures_differ_from_each_other_and_from_a_comparison(vision, count, least):
    colours = [*distinct_colours(count), REFERENCE, PREDICTION, OTHER]
    points = seen(colours, vision)
    distances = np.linalg.norm(points[:, None] - points, axis=-1)
    assert distances[~np.eye(len(points), dtype=bool)].min() > least


# ---- best slice


def test_the_best_slice_weighs_small_structures_like_large_ones():
    labels = np.zeros((10, 10, 12), int)
    labels[:, :, 1] = 1  # the largest area of the large structure
    labels[:9, :, 7] = 1
    labels[2, 2, 7:9] = 2  # the only slices with the small structure
    assert best_slice(labels, axis=2) == 7


@given(st.integers(0, 2))
def test_without_labels_the_middle_slice_is_best(axis):
    labels = np.zeros((4, 6, 8), int)
    assert best_slice(labels, axis) == (2, 3, 4)[axis]


# ---- slices


@pytest.mark.parametrize(
    ("axis", "place", "corner"),
    [
        (2, (24, 8, 16), ("below", "left")),  # right and posterior on an axial slice
        (2, (8, 24, 16), ("above", "right")),  # left and anterior
        (1, (24, 16, 24), ("above", "left")),  # right and superior on a coronal slice
        (0, (16, 24, 8), ("below", "left")),  # anterior and inferior on a sagittal slice
    ],
)
def test_the_patient_is_drawn_in_radiological_orientation(axis, place, corner):
    labels = ball((33, 33, 33), place, 4)
    picture = draw_slice(np.ones(labels.shape), labels, (1, 1, 1), axis=axis, window=(0, 1))
    row, column = centre(picture, COLOURS[0])
    assert ("above" if row < 0.5 else "below", "left" if column < 0.5 else "right") == corner


def test_pixels_are_square_in_mm_and_the_longer_side_has_the_size():
    image, spacing = np.ones((40, 30, 10)), (1.0, 2.0, 5.0)
    axial = draw_slice(image, None, spacing, axis=2, window=(0, 1), size=240)
    coronal = draw_slice(image, None, spacing, axis=1, window=(0, 1), size=240)
    assert axial.shape == (240, 160, 3)
    assert coronal.shape == (240, 192, 3)


def test_a_ball_is_round_on_anisotropic_voxels():
    spacing = (1.0, 1.0, 4.0)
    labels = ball((40, 40, 10), (20, 20, 5), 12, spacing)
    picture = draw_slice(np.ones(labels.shape), labels, spacing, axis=1, window=(0, 1))
    rows, columns = np.nonzero(has_colour(picture, COLOURS[0]))
    assert np.ptp(rows) == pytest.approx(np.ptp(columns), rel=0.15)


def test_the_window_runs_from_black_to_white():
    image = np.ones((5, 5, 5))
    image *= np.array([-500.0, -100.0, 0.0, 100.0, 900.0])[:, None, None]
    picture = draw_slice(image, None, (1, 1, 1), window=(-100, 100), size=5)
    assert picture[0, :, 0].tolist() == [255, 255, 128, 0, 0]


def test_a_structure_is_outlined_over_a_translucent_fill():
    labels = ball((33, 33, 3), (16, 16, 1), 10)
    picture = draw_slice(np.ones(labels.shape), labels, (1, 1, 1), index=1, window=(0, 2))
    grey, colour = 128, COLOURS[0].astype(float)
    fill = grey + 0.35 * (colour - grey)
    np.testing.assert_allclose(picture[128, 128], fill, atol=1.5)
    outline = has_colour(picture, COLOURS[0])
    assert 0 < outline.mean() < 0.1


def test_air_is_cut_off_except_around_labels():
    image = np.zeros((60, 60, 3))
    image[20:40, 20:40] = 1
    labels = np.zeros(image.shape, int)
    labels[2:5, 30:33, 1] = 3
    options = {"index": 1, "window": (0, 1), "size": 240}
    unlabelled = draw_slice(image, None, (1, 1, 1), **options)
    labelled = draw_slice(image, labels, (1, 1, 1), **options)
    assert (unlabelled == 255).mean() > 0.6
    assert has_colour(labelled, COLOURS[2]).any()


def test_an_empty_image_is_black_and_whole():
    empty = np.zeros((6, 6, 6))
    assert not draw_slice(empty, empty.astype(int), (1, 1, 1), size=12).any()


def test_a_slice_outside_the_volume_and_labels_of_another_shape_are_refused():
    image = np.zeros((4, 5, 6))
    with pytest.raises(FseftError, match="slice 6 of 6 along axis 2"):
        draw_slice(image, None, (1, 1, 1), index=6)
    with pytest.raises(FseftError, match=r"\(4, 5, 5\)"):
        draw_slice(image, np.zeros((4, 5, 5), int), (1, 1, 1))


@pytest.mark.real
def test_the_right_parotid_of_a_real_patient_is_on_the_left_and_the_mandible_in_front(real_data):
    import SimpleITK

    def read_ras(folder, name):
        stored = SimpleITK.ReadImage(str(real_data / "headneck" / folder / name))
        image = SimpleITK.DICOMOrient(stored, "RAS")
        return SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0), image.GetSpacing()

    splits = json.loads((real_data / "headneck" / "splits.json").read_text())
    case = splits["complete"][0]
    image, spacing = read_ras("imagesTr", f"{case}_0000.nii.gz")
    labels, _ = read_ras("labelsTr", f"{case}.nii.gz")
    picture = draw_slice(image, labels, spacing, axis=2, window=(-160, 240))
    cord, right_parotid, left_parotid, mandible = (
        centre(picture, COLOURS[value - 1]) for value in (2, 3, 4, 7)
    )
    assert right_parotid[1] < cord[1] < left_parotid[1]
    assert mandible[0] < cord[0]
