"""Scans with axes that are not perpendicular: masks lie on them in world space."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fseft.schemas import Intensity, Preprocessing
from fseft.volume.geometry import Geometry, shear_degrees
from fseft.volume.image import Volume
from fseft.volume.preprocessing import LabelMerger, preprocess_volume
from fseft.volume.shear import from_perpendicular, perpendicular_grid, to_perpendicular

SHAPE = (14, 30, 26)
SPACING = (4.0, 1.5, 1.5)
few = settings(max_examples=15, deadline=None)
tilts = st.tuples(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5), st.floats(-0.2, 0.2))
orders = st.permutations(range(3))


def sheared(tilt, order=(0, 1, 2)):
    """A grid whose slices are displaced by a fraction of their distance, and rows a little."""
    columns = np.diag(SPACING)
    columns[1, 0], columns[2, 0] = SPACING[0] * tilt[0], SPACING[0] * tilt[1]
    columns[2, 1] = SPACING[1] * tilt[2]
    affine = np.eye(4)
    affine[:3, :3] = columns[:, order]
    affine[:3, 3] = (-20, 30, 7)
    i, j, k = (SHAPE[axis] for axis in order)
    return Geometry((i, j, k), affine)


def world(geometry):
    """Positions of the voxel centres in mm, (i, j, k, 3)."""
    indices = np.moveaxis(np.indices(geometry.shape), 0, -1)
    return indices @ geometry.affine[:3, :3].T + geometry.affine[:3, 3]


def ball(geometry, centre, radius=12):
    return np.linalg.norm(world(geometry) - centre, axis=-1) < radius


@few
@given(tilts, orders)
def test_the_perpendicular_grid_covers_the_scan(tilt, order):
    geometry = sheared(tilt, order)
    grid = perpendicular_grid(geometry)
    assert shear_degrees(grid.affine) < 0.1
    corners = world(geometry).reshape(-1, 3) - grid.affine[:3, 3]
    indices = np.linalg.solve(grid.affine[:3, :3], corners.T).T
    assert (indices > -1e-3).all()
    assert (indices < np.subtract(grid.shape, 1) + 1e-3).all()


@few
@given(tilts, orders)
def test_a_ball_stays_where_it_is_on_the_way_to_the_network_and_back(tilt, order):
    geometry = sheared(tilt, order)
    centre = world(geometry).reshape(-1, 3).mean(0)
    label = ball(geometry, centre).astype(np.uint8)
    image = Volume(np.where(label, 200, -900).astype(np.int16)[None], geometry)
    window = Intensity(scheme="window", low=-200, high=300)
    preprocessing = Preprocessing(
        orientation="RAS",
        spacing_mm=(1.5, 1.5, 3),
        modality="ct",
        intensity=(window,),
        patch_size=(16, 16, 16),
    )
    prepared = preprocess_volume(image, Volume(label[None], geometry), preprocessing)
    true_volume = label.sum() * geometry.voxel_volume_mm3
    seen = prepared.label.sum() * prepared.geometry.voxel_volume_mm3
    assert abs(seen / true_volume - 1) < 0.1
    # The network sees a ball, not an ellipsoid.
    expected = ball(prepared.geometry, centre)
    assert overlap(prepared.label > 0, expected) > 0.9
    merger = LabelMerger.empty(prepared.native, 1, np.uint8)
    merger.adder(prepared, [0, 1], 1)(np.stack([~expected, expected]).astype(np.float32))
    restored = from_perpendicular(merger.labels, geometry, labels=True)
    assert restored.shape == geometry.shape
    assert overlap(restored > 0, label > 0) > 0.9


def test_slices_of_a_tilted_gantry_are_shifted_by_whole_slices_only():
    """Neighbouring slices are not mixed: their intensities stay what they are."""
    geometry = sheared((0.3, 0, 0))
    slices = np.arange(SHAPE[0], dtype=np.int16)[:, None, None] * 100
    volume = Volume(np.broadcast_to(slices, SHAPE)[None].copy(), geometry)
    upright = to_perpendicular(volume, pad=-1)
    found = [set(np.unique(part)) - {-1} for part in upright.array[0]]
    values = [{value for value in part if value % 100 == 0} for part in found]
    assert [max(part) for part in values] == [100 * number for number in range(SHAPE[0])]


def test_perpendicular_scans_stay_as_they_are():
    geometry = sheared((0, 0, 0))
    volume = Volume(np.zeros((1, *SHAPE), np.int16), geometry)
    assert perpendicular_grid(geometry) is geometry
    assert to_perpendicular(volume) is volume
    assert from_perpendicular(volume.array, geometry, labels=True) is volume.array


def overlap(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())
