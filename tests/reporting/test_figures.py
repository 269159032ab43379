"""Pictures show what a radiologist expects where it is expected, and charts are well-formed."""

from __future__ import annotations

import json
import struct
import zlib
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fseft.errors import FseftError
from fseft.reporting.figures import best_slice, colours, curve_svg, overlay, png, side_by_side

few = settings(max_examples=25, deadline=None)


def decode(data):
    """A PNG reader for 8-bit RGB without filters, which checks every checksum."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        body = data[at + 4 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0] == zlib.crc32(body)
        chunks[body[:4]] = body[4:]
        at += 12 + length
    width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
    assert chunks[b"IHDR"][8:] == bytes([8, 2, 0, 0, 0])
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, 1 + 3 * width)
    assert not lines[:, 0].any()
    return lines[:, 1:].reshape(height, width, 3)


def centre(picture, colour):
    """The place (row, column) of a colour, as shares of the picture."""
    return (np.argwhere((picture == colour).all(axis=2)).mean(axis=0) + 0.5) / picture.shape[:2]


def ball(shape, middle, radius, spacing=(1.0, 1.0, 1.0)):
    grid = np.indices(shape).reshape(3, -1).T * spacing
    return (np.linalg.norm(grid - np.array(middle) * spacing, axis=1) <= radius).reshape(shape)


# ---- PNG


@few
@given(
    hnp.arrays(
        np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9).map(lambda s: (*s, 3))
    )
)
def test_png_gives_back_every_pixel(picture):
    np.testing.assert_array_equal(decode(png(picture)), picture)


def test_pictures_stand_in_a_row_centred_with_a_gap():
    row = side_by_side(
        [np.full((4, 5, 3), 200, np.uint8), np.full((2, 3, 3), 100, np.uint8)], gap=2
    )
    assert row.shape == (4, 10, 3)
    assert (row[:, :5] == 200).all()
    assert not row[:, 5:7].any()
    assert (row[1:3, 7:] == 100).all()
    assert not row[[0, 3], 7:].any()


def test_colours_are_distinct_and_their_beginning_does_not_depend_on_their_number():
    assert len(np.unique(colours(21), axis=0)) == 21
    np.testing.assert_array_equal(colours(40)[:7], colours(7))


# ---- slices


def test_the_best_slice_weighs_small_structures_like_large_ones():
    labels = np.zeros((10, 10, 12), int)
    labels[:, :, 1] = 1  # large, widest here
    labels[:9, :, 7] = 1
    labels[2, 2, 7:9] = 2  # small, here only
    assert best_slice(labels, axis=2) == 7


@given(st.integers(0, 2))
def test_without_labels_the_middle_slice_is_best(axis):
    assert best_slice(np.zeros((4, 6, 8), int), axis) == (2, 3, 4)[axis]


# ---- overlay


@pytest.mark.parametrize(
    ("axis", "place", "where"),
    [
        (2, (24, 8, 16), ("below", "left")),  # right and posterior on an axial slice
        (2, (8, 24, 16), ("above", "right")),  # left and anterior
        (1, (24, 16, 24), ("above", "left")),  # right and superior on a coronal slice
        (0, (16, 24, 8), ("below", "left")),  # anterior and inferior on a sagittal slice
    ],
)
def test_the_patient_is_shown_as_radiologists_look_at_them(axis, place, where):
    labels = ball((33, 33, 33), place, 4).astype(int)
    image = np.ones(labels.shape)
    row, column = centre(overlay(image, labels, (1, 1, 1), axis=axis, window=(0, 1)), colours(1)[0])
    assert ("above" if row < 0.5 else "below", "left" if column < 0.5 else "right") == where


def test_pixels_are_square_in_mm_and_the_longer_side_has_the_size():
    image = np.ones((40, 30, 10))
    axial = overlay(image, None, (1.0, 2.0, 5.0), axis=2, window=(0, 1), size=240)
    coronal = overlay(image, None, (1.0, 2.0, 5.0), axis=1, window=(0, 1), size=240)
    assert axial.shape == (240, 160, 3)
    assert coronal.shape == (240, 192, 3)


def test_a_ball_is_round_on_anisotropic_voxels():
    spacing = (1.0, 1.0, 4.0)
    labels = ball((40, 40, 10), (20, 20, 5), 12, spacing).astype(int)
    picture = overlay(np.ones(labels.shape), labels, spacing, axis=1, window=(0, 1))
    rows, columns = np.nonzero((picture == colours(1)[0]).all(axis=2))
    assert np.ptp(rows) == pytest.approx(np.ptp(columns), rel=0.15)


def test_the_window_runs_from_black_to_white():
    image = np.array([-500.0, -100.0, 0.0, 100.0, 900.0])[:, None, None] * np.ones((5, 5, 5))
    picture = overlay(image, None, (1, 1, 1), window=(-100, 100), size=5)
    assert picture[0, :, 0].tolist() == [255, 255, 128, 0, 0]


def test_a_structure_is_outlined_in_full_and_filled_lightly():
    labels = ball((33, 33, 3), (16, 16, 1), 10).astype(int)
    picture = overlay(np.ones(labels.shape), labels, (1, 1, 1), index=1, window=(0, 2))
    grey, colour = 128, colours(1)[0].astype(float)
    np.testing.assert_allclose(picture[128, 128], grey + 0.22 * (colour - grey), atol=1.5)
    outline = (picture == colours(1)[0]).all(axis=2)
    assert 0 < outline.sum() < 0.1 * picture[..., 0].size


def test_air_is_cut_off_but_never_a_label_in_it():
    image = np.zeros((60, 60, 3))
    image[20:40, 20:40] = 1
    labels = np.zeros(image.shape, int)
    labels[2:5, 30:33, 1] = 3
    bare = overlay(image, None, (1, 1, 1), index=1, window=(0, 1), size=240)
    labelled = overlay(image, labels, (1, 1, 1), index=1, window=(0, 1), size=240)
    assert (bare == 255).mean() > 0.6
    assert (labelled == colours(3)[2]).all(axis=2).any()


def test_an_empty_picture_is_black_and_whole():
    assert not overlay(np.zeros((6, 6, 6)), np.zeros((6, 6, 6), int), (1, 1, 1), size=12).any()


def test_a_slice_outside_and_labels_of_another_shape_are_refused():
    image = np.zeros((4, 5, 6))
    with pytest.raises(FseftError, match="slice 6 of 6 along axis 2"):
        overlay(image, None, (1, 1, 1), index=6)
    with pytest.raises(FseftError, match=r"\(4, 5, 5\)"):
        overlay(image, np.zeros((4, 5, 5), int), (1, 1, 1))


@pytest.mark.real
def test_the_right_parotid_of_a_real_patient_is_on_the_left_and_the_mandible_in_front(real_data):
    import SimpleITK

    def ras(folder, name):
        image = SimpleITK.DICOMOrient(
            SimpleITK.ReadImage(str(real_data / "headneck" / folder / name)), "RAS"
        )
        return SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0), image.GetSpacing()

    case = json.loads((real_data / "headneck" / "splits.json").read_text())["complete"][0]
    image, spacing = ras("imagesTr", f"{case}_0000.nii.gz")
    labels, _ = ras("labelsTr", f"{case}.nii.gz")
    picture = overlay(image, labels, spacing, axis=2, window=(-160, 240))
    cord, right, left, mandible = (centre(picture, colours(7)[value - 1]) for value in (2, 3, 4, 7))
    assert right[1] < cord[1] < left[1]
    assert mandible[0] < cord[0]


# ---- charts


def numbers(svg):
    root = ET.fromstring(svg)  # noqa: S314 - made a moment ago
    lines = root.iter("{http://www.w3.org/2000/svg}polyline")
    return root, [
        [tuple(map(float, p.split(","))) for p in line.get("points").split()] for line in lines
    ]


def test_a_chart_rises_where_its_values_rise():
    _, (line,) = numbers(
        curve_svg({"LoRA": [(1, 0.2), (5, 0.5), (10, 0.8)]}, x_label="k", y_label="Dice")
    )
    assert [x for x, _ in line] == sorted(x for x, _ in line)
    assert [y for _, y in line] == sorted((y for _, y in line), reverse=True)


def test_names_are_escaped_and_all_are_in_the_legend():
    root, _ = numbers(
        curve_svg({"<b> & co": [(0, 1)], "LoRA": [(0, 2)]}, x_label="<x>", y_label='"y"')
    )
    texts = {node.text for node in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"<b> & co", "LoRA", "<x>", '"y"'} <= texts


@few
@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=30),
        st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(width=32)), max_size=5),
        max_size=8,
    )
)
def test_whatever_the_values_the_chart_is_well_formed_and_stays_on_its_paper(series):
    root, lines = numbers(curve_svg(series, x_label="x", y_label="y"))
    _, _, width, height = map(float, root.get("viewBox").split())
    for line in lines:
        assert all(0 <= x <= width and 0 <= y <= height for x, y in line)
