"""Grids: orientation, cropping and resampling never move a voxel in the patient."""

from __future__ import annotations

import json
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from fseft.errors import FseftError
from fseft.volume.geometry import (
    Box,
    Geometry,
    bounding_box,
    crop,
    geometry_mismatch,
    reorient,
    resampled_geometry,
    shear_degrees,
)

CODES = [
    "".join(letters) for pairs in permutations(("LR", "PA", "SI")) for letters in product(*pairs)
]  # all 48 orientations

shapes = st.tuples(*[st.integers(1, 6)] * 3)
spacings = st.tuples(*[st.floats(0.2, 8)] * 3)
angles = st.one_of(
    st.just((0.0, 0.0, 0.0)),
    st.tuples(*[st.sampled_from([0, 30, 44.9, 45, 60, 90, 135, 211.7])] * 3),
)
origins = st.tuples(*[st.floats(-500, 500)] * 3)


@st.composite
def geometries(draw):
    affine = np.eye(4)
    rotation = Rotation.from_euler("xyz", draw(angles), degrees=True).as_matrix()
    affine[:3, :3] = rotation * draw(spacings)
    affine[:3, 3] = draw(origins)
    return reorient(np.empty((1, 1, 1)), Geometry((1, 1, 1), affine), draw(st.sampled_from(CODES)))[
        1
    ]


@st.composite
def grids(draw):
    """A geometry and an array of its voxels' world positions, as three channels."""
    geometry = Geometry(draw(shapes), draw(geometries()).affine)
    return world_positions(geometry), geometry


def world_positions(geometry):
    index = np.stack([*np.indices(geometry.shape), np.ones(geometry.shape)])
    return np.einsum("wa,aijk->wijk", geometry.affine, index)[:3]


def corners_mm(geometry):
    """The eight outer corners of the volume, half a voxel beyond the outer centres."""
    ends = product(*((-0.5, size - 0.5) for size in geometry.shape))
    return np.array([geometry.affine @ (*end, 1) for end in ends])[:, :3]


def test_a_code_names_where_each_array_axis_grows_to():
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    assert Geometry((5, 6, 7), affine).orientation == "LPS"
    assert Geometry((5, 6, 7), affine[:, [2, 1, 0, 3]]).orientation == "SPL"
    assert Geometry((5, 6, 7), np.diag([-1.0, -1.0, 1.0, 1.0])).orientation == "RAS"


def test_sizes_are_in_millimetres():
    affine = np.diag([2.0, -3.0, 4.0, 1.0])
    affine[:3, 3] = (10, 20, 30)
    geometry = Geometry((5, 6, 7), affine)
    assert geometry.spacing_mm == (2, 3, 4)
    assert geometry.extent_mm == (10, 18, 28)
    assert geometry.origin_mm == (10, 20, 30)
    assert geometry.voxel_volume_mm3 == pytest.approx(24)
    np.testing.assert_array_equal(geometry.direction, np.diag([1, -1, 1]))


@given(geometries())
def test_every_grid_has_one_letter_of_each_pair(geometry):
    assert geometry.orientation in CODES


@given(grids())
def test_a_geometry_survives_json_exactly(grid):
    _, geometry = grid
    back = Geometry.from_json(json.loads(json.dumps(geometry.to_json())))
    assert back.shape == geometry.shape
    np.testing.assert_array_equal(back.affine, geometry.affine)


@given(grids(), st.sampled_from(CODES))
def test_reorienting_gives_the_requested_code_and_moves_no_voxel(grid, code):
    positions, geometry = grid
    turned, where = reorient(positions, geometry, code)
    assert where.orientation == code
    assert where.shape == turned.shape[1:]
    np.testing.assert_allclose(turned, world_positions(where), atol=1e-9)


@given(grids(), st.sampled_from(CODES))
def test_reorienting_back_is_exact_even_at_45_degrees(grid, code):
    array, geometry = grid
    back, where = reorient(*reorient(array, geometry, code), geometry.orientation)
    np.testing.assert_array_equal(back, array)
    np.testing.assert_allclose(where.affine, geometry.affine, atol=1e-9)


@pytest.mark.parametrize("code", CODES)
def test_all_48_codes_are_reached_and_undone(code):
    array = np.arange(24).reshape(2, 3, 4)
    geometry = Geometry((2, 3, 4), np.eye(4))
    turned, where = reorient(array, geometry, code)
    assert where.orientation == code
    assert turned.flags.c_contiguous
    np.testing.assert_array_equal(reorient(turned, where, "LPS")[0], array)


@pytest.mark.parametrize("code", ["", "RA", "RAA", "RAX", "RASS", "RASX", "RLS", "ras"])
def test_an_invalid_orientation_is_refused(code):
    with pytest.raises(FseftError, match="is not an orientation"):
        reorient(np.zeros((1, 1, 1)), Geometry((1, 1, 1), np.eye(4)), code)


@given(grids(), st.data())
def test_cropping_moves_no_voxel(grid, data):
    positions, geometry = grid
    start = tuple(data.draw(st.integers(0, size - 1)) for size in geometry.shape)
    stop = tuple(
        data.draw(st.integers(a + 1, size)) for a, size in zip(start, geometry.shape, strict=True)
    )
    box = Box(start, stop)
    part, where = crop(positions, geometry, box)
    assert part.shape[1:] == where.shape == box.shape
    np.testing.assert_allclose(part, world_positions(where), atol=1e-9)


@given(shapes, st.data())
def test_the_bounding_box_holds_every_hit_and_touches_them_on_all_sides(shape, data):
    hits = data.draw(
        st.lists(st.tuples(*(st.integers(0, size - 1) for size in shape)), min_size=1, max_size=4)
    )
    mask = np.zeros(shape, bool)
    mask[tuple(np.transpose(hits))] = True
    box = bounding_box(mask)
    assert box.start == tuple(np.min(hits, axis=0))
    assert box.stop == tuple(np.max(hits, axis=0) + 1)
    assert mask[box.slices].sum() == mask.sum()


def test_the_margin_of_a_bounding_box_ends_at_the_array():
    mask = np.zeros((2, 10, 10, 10), bool)
    mask[0, 1, 5, 5], mask[1, 2, 5, 9] = True, True
    assert bounding_box(mask, margin_voxels=2) == Box((0, 3, 3), (5, 8, 10))


def test_the_bounding_box_of_an_empty_mask_is_the_whole_array():
    assert bounding_box(np.zeros((3, 4, 5)), margin_voxels=1) == Box((0, 0, 0), (3, 4, 5))


@given(grids(), spacings)
def test_resampling_keeps_the_corners_of_the_volume(grid, spacing_mm):
    _, geometry = grid
    resampled = resampled_geometry(geometry, spacing_mm)
    np.testing.assert_allclose(corners_mm(resampled), corners_mm(geometry), atol=1e-6)
    np.testing.assert_allclose(resampled.direction, geometry.direction, atol=1e-9)


def test_resampling_rounds_the_shape_and_then_fits_the_spacing():
    resampled = resampled_geometry(Geometry((10, 10, 1), np.eye(4)), (3.0, 1.0, 5.0))
    assert resampled.shape == (3, 10, 1)
    np.testing.assert_allclose(resampled.spacing_mm, (10 / 3, 1, 1))
    np.testing.assert_allclose(resampled.origin_mm, ((10 / 3 - 1) / 2, 0, 0))


def changed(**change):
    affine = np.diag([*change.get("spacing", (1, 1, 1)), 1.0])
    if "degrees" in change:
        affine[:3, :3] = (
            Rotation.from_euler("z", change["degrees"], degrees=True).as_matrix() @ affine[:3, :3]
        )
    affine[:3, 3] = change.get("origin", (0, 0, 0))
    return Geometry(change.get("shape", (4, 4, 4)), affine)


@pytest.mark.parametrize(
    ("change", "phrase"),
    [
        ({"shape": (4, 4, 5)}, "shape 5×4×4 against 4×4×4 voxels"),
        ({"spacing": (1, 1, 2)}, "spacing 2×1×1 mm against 1×1×1 mm"),
        ({"spacing": (-1, 1, 1)}, "orientation SPR against SPL"),
        ({"degrees": 2}, "axes that differ by 2 degrees"),
        ({"origin": (0, 0, 0.5)}, "origin (0, 0, 0.5) mm against (0, 0, 0) mm"),
    ],
)
def test_a_mismatch_names_what_differs_with_both_values(change, phrase):
    assert geometry_mismatch(changed(**change), changed()) == phrase


@pytest.mark.parametrize(
    "change", [{}, {"spacing": (1, 1, 1.0005)}, {"degrees": 0.03}, {"origin": (0.05, 0, 0)}]
)
def test_rounding_of_file_formats_is_not_a_mismatch(change):
    assert geometry_mismatch(changed(**change), changed()) is None


def test_the_tolerance_of_the_origin_shrinks_with_the_voxels():
    fine, moved = (changed(spacing=(0.1,) * 3, origin=(x, 0, 0)) for x in (0.0, 0.05))
    assert geometry_mismatch(fine, moved)


def test_the_shear_is_the_deviation_from_the_right_angle():
    sheared = np.diag([2.0, 3.0, 4.0, 1.0])
    sheared[0, 1] = 0.3
    assert shear_degrees(sheared) == pytest.approx(np.degrees(np.arctan(0.1)))


@given(geometries())
def test_perpendicular_axes_have_no_shear(geometry):
    assert shear_degrees(geometry.affine) < 1e-6


@pytest.mark.parametrize("row", [(0, 0, 0), (np.nan, 0, 0), (0, 1, 0)])
def test_axes_that_span_no_volume_are_refused(row):
    affine = np.eye(4)
    affine[:3, 0] = row
    with pytest.raises(FseftError, match="degenerate grid"):
        shear_degrees(affine)
