"""Preprocessing of a volume and its inverse: predictions return to their place in the scan."""

from __future__ import annotations

import json
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from scipy.special import softmax as softmax_of

from fseft.schemas import Intensity, Preprocessing
from fseft.volume.geometry import Geometry, reorient
from fseft.volume.image import Volume
from fseft.volume.preprocessing import (
    GridTransform,
    LabelMerger,
    body_box,
    preprocess_volume,
    restore_probabilities,
)
from tests.sample_data import restored_labels

CODES = [
    "".join(letters) for pairs in permutations(("LR", "PA", "SI")) for letters in product(*pairs)
]
SHAPE = (13, 17, 11)


def a_geometry(code="LPS", angles=(0, 0, 0), spacing_mm=(1.0, 1.5, 2.0)):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * spacing_mm
    affine[:3, 3] = (-40, 25, 300)
    return reorient(np.empty(SHAPE), Geometry(SHAPE, affine), code)[1]


def a_case(geometry, *, labels=(1, 3, 200)):
    """CT with air around a body that has some structures in it."""
    rng = np.random.default_rng(0)
    image = np.full((1, *geometry.shape), -1000, np.int16)
    image[0, 2:-2, 3:-1, 1:-2] = rng.normal(40, 10, (image[0, 2:-2, 3:-1, 1:-2]).shape)
    label = np.zeros((1, *geometry.shape), np.uint8)
    label[0, 3:-3, 4:-3, 2:-3] = rng.choice((0, *labels), label[0, 3:-3, 4:-3, 2:-3].shape)
    return Volume(image, geometry), Volume(label, geometry)


def chosen(*, channels=1, region="crop", **fields):
    intensity = (Intensity(scheme="zscore", region=region),) * channels
    return Preprocessing(intensity=intensity, patch_size=(8, 8, 8), **fields)


def one_hot(label, ids):
    return np.stack([label == value for value in ids]).astype(np.float32)


def spacing_along(geometry, code):
    return reorient(np.empty(geometry.shape), geometry, code)[1].spacing_mm


@settings(deadline=None)
@given(
    native=st.sampled_from(CODES),
    canonical=st.sampled_from(["RAS", "LPS", "SPL"]),
    angles=st.tuples(*[st.sampled_from([0, 5, 30, 44, 45])] * 3),
)
def test_labels_come_back_voxel_by_voxel_in_any_orientation_and_oblique(native, canonical, angles):
    geometry = a_geometry(native, angles)
    volume, labels = a_case(geometry)
    spacing = spacing_along(geometry, canonical)
    prepared = preprocess_volume(
        volume, labels, chosen(orientation=canonical, spacing_mm=spacing, modality="ct")
    )
    ids = (0, 1, 3, 200)
    restored = restored_labels(one_hot(prepared.label, ids), prepared, ids)
    np.testing.assert_array_equal(restored, labels.array[0])


@settings(deadline=None, max_examples=25)
@given(
    native=st.sampled_from(CODES),
    spacing=st.tuples(*[st.floats(0.6, 4)] * 3),
    alignment=st.sampled_from(["edges", "first-voxel"]),
)
def test_a_structure_stays_in_its_place_at_any_spacing(native, spacing, alignment):
    geometry = a_geometry(native, (0, 0, 20), (1, 1, 1))
    volume, labels = a_case(geometry)
    labels.array[:] = 0
    labels.array[0, 3:10, 4:11, 2:9] = 1
    prepared = preprocess_volume(
        volume,
        labels,
        chosen(orientation="RAS", spacing_mm=spacing, modality="ct", alignment=alignment),
    )
    restored = restored_labels(one_hot(prepared.label, (0, 1)), prepared, (0, 1))
    before, after = (np.argwhere(array).mean(axis=0) for array in (labels.array[0], restored))
    # Half a voxel of the coarser grid is what a grid can be off by.
    assert (abs(before - after) <= 0.5 + max(spacing) / 2).all()


def test_the_grid_says_where_the_arrays_lie():
    volume, labels = a_case(a_geometry("SPL", (0, 10, 0)))
    prepared = preprocess_volume(
        volume, labels, chosen(orientation="RAS", spacing_mm=(2, 2, 2), modality="ct")
    )
    assert prepared.canonical.orientation == "RAS"
    assert prepared.image.shape == (1, *prepared.geometry.shape) == (1, *prepared.label.shape)
    assert prepared.geometry.spacing_mm == pytest.approx((2, 2, 2), rel=0.2)


def test_from_the_first_voxel_the_spacing_is_exact_and_voxels_lie_where_the_affine_says():
    geometry = a_geometry("RAS", spacing_mm=(1.0, 1.5, 2.0))
    position = np.indices(SHAPE).astype(np.float32)
    volume = Volume(position - 1000, geometry)
    conventions = {"alignment": "first-voxel", "interpolation": "linear", "crop": "none"}
    grid = {"orientation": "RAS", "spacing_mm": (0.7, 2.1, 1.3), "modality": "ct"}
    prepared = preprocess_volume(volume, None, chosen(channels=3, **grid, **conventions))
    assert prepared.geometry.spacing_mm == pytest.approx((0.7, 2.1, 1.3))
    new = np.indices(prepared.geometry.shape).reshape(3, -1)
    homogeneous = np.vstack([new, np.ones(new.shape[1])])
    old = np.linalg.solve(geometry.affine, prepared.geometry.affine @ homogeneous)[:3]
    expected = np.clip(old, 0, np.subtract(SHAPE, 1)[:, None]) - 1000
    np.testing.assert_allclose(prepared.image.reshape(3, -1), expected, atol=1e-3)


def test_an_axis_with_thick_slices_is_not_interpolated_as_in_nnu_net():
    geometry = a_geometry("RAS", spacing_mm=(5.0, 1.0, 1.0))
    volume, _ = a_case(geometry)
    grid = {"orientation": "RAS", "spacing_mm": (2.5, 1.0, 1.0), "modality": "ct"}
    prepared = preprocess_volume(volume, None, chosen(interpolation="nnunet", **grid))
    cubic = preprocess_volume(volume, None, chosen(**grid))
    i, j, k = prepared.box.shape
    assert prepared.geometry.shape == cubic.geometry.shape == (2 * i, j, k)
    np.testing.assert_array_equal(prepared.image[:, ::2], prepared.image[:, 1::2])
    assert not np.array_equal(prepared.image, cubic.image)


@pytest.mark.parametrize(("crop", "side"), [("body", 3), ("nonzero", 5), ("none", 7)])
def test_the_contract_says_what_is_cropped(crop, side):
    array = np.full((1, 7, 7, 7), -1000, np.int16)
    array[0, 2:5, 2:5, 2:5] = 40
    if crop == "nonzero":
        array[:, [0, 6]] = array[:, :, [0, 6]] = array[:, :, :, [0, 6]] = 0
    volume = Volume(array, Geometry((7, 7, 7), np.diag([-1.0, -1.0, 1.0, 1.0])))
    grid = {"orientation": "RAS", "spacing_mm": (1, 1, 1), "modality": "ct"}
    assert preprocess_volume(volume, None, chosen(crop=crop, **grid)).box.shape == (side,) * 3


@pytest.mark.parametrize("region", ["crop", "nonzero", "resampled"])
def test_the_contract_says_which_voxels_the_statistics_are_of(region):
    volume, _ = a_case(a_geometry("RAS"))
    array = volume.array
    array[array > 45] = 0
    grid = {"orientation": "RAS", "spacing_mm": (2, 2, 2), "modality": "ct"}
    prepared = preprocess_volume(volume, None, chosen(region=region, crop="none", **grid))
    values = {"crop": array, "nonzero": array[array != 0], "resampled": prepared.image}[region]
    assert prepared.means == pytest.approx([values.mean()], rel=1e-4)
    assert prepared.stds == pytest.approx([values.std()], rel=1e-4)


@pytest.mark.parametrize(("modality", "air"), [("ct", -1000), ("mr", 0), ("other", -3)])
def test_air_is_cropped_away(modality, air):
    array = np.full((1, *SHAPE), air, np.int16)
    array[0, 4:9, 5:6, 2:10] = 100
    assert body_box(array, modality).shape == (5, 1, 8)


def test_a_voxel_counts_that_is_above_air_in_any_channel():
    array = np.zeros((2, *SHAPE), np.float32)
    array[0, 2, 3, 4], array[1, 5, 3, 4] = 1, 1
    assert body_box(array, "mr").shape == (4, 1, 1)


def test_all_is_kept_where_nothing_is_above_air():
    assert body_box(np.full((1, *SHAPE), -1000), "ct").shape == SHAPE


def test_the_crop_never_cuts_a_label():
    volume, labels = a_case(a_geometry("RAS"))
    labels.array[0, 0, 0, 0] = 5
    spacing = spacing_along(volume.geometry, "RAS")
    prepared = preprocess_volume(
        volume, labels, chosen(orientation="RAS", spacing_mm=spacing, modality="ct")
    )
    assert (prepared.label == 5).sum() == 1


@pytest.mark.parametrize(
    ("dtype", "modality", "kept"),
    [
        (np.int16, "ct", np.int16),
        (np.int32, "ct", np.int16),
        (np.int64, "mr", np.uint8),
        (np.float64, "ct", np.float32),
        (np.float32, "other", np.float32),
    ],
)
@pytest.mark.parametrize("spacing", [(1.0, 1.5, 2.0), (0.8, 2.0, 1.7)])
def test_whole_numbers_stay_whole_in_a_small_type(dtype, modality, kept, spacing):
    volume, _ = a_case(a_geometry("LPS"))
    volume = Volume(volume.array.astype(dtype), volume.geometry)
    prepared = preprocess_volume(
        volume, None, chosen(orientation="LPS", spacing_mm=spacing, modality=modality)
    )
    assert prepared.image.dtype == kept
    assert volume.array.min() <= prepared.image.min()
    assert prepared.image.max() <= volume.array.max()
    assert prepared.label is None


def test_ct_without_air_still_has_room_for_it():
    volume, _ = a_case(a_geometry("LPS"))
    volume = Volume((volume.array + 1024).astype(np.uint16), volume.geometry)
    prepared = preprocess_volume(
        volume, None, chosen(orientation="LPS", spacing_mm=(1, 1.5, 2), modality="ct")
    )
    assert prepared.image.dtype == np.int16


def test_means_and_deviations_are_those_of_the_crop():
    volume, _ = a_case(a_geometry("SPL"))
    prepared = preprocess_volume(
        volume, None, chosen(orientation="RAS", spacing_mm=(3, 3, 3), modality="ct")
    )
    body = volume.array[0][volume.array[0] > -500]
    assert prepared.means == pytest.approx([body.mean()])
    assert prepared.stds == pytest.approx([body.std()])
    assert (prepared.minima, prepared.maxima) == ((volume.array.min(),), (volume.array.max(),))


def test_probabilities_come_back_and_are_0_outside_the_crop():
    geometry = a_geometry("PSL")
    volume, labels = a_case(geometry)
    spacing = spacing_along(geometry, "RAS")
    prepared = preprocess_volume(
        volume, labels, chosen(orientation="RAS", spacing_mm=spacing, modality="ct")
    )
    scores = one_hot(prepared.label, (0, 3))
    restored = restore_probabilities(scores, prepared)
    assert restored.dtype == np.float32
    np.testing.assert_array_equal(restored[1], labels.array[0] == 3)
    assert not restored[:, volume.array[0] < -500].any()


def test_the_strongest_claim_wins_and_the_first_of_equal_ones():
    geometry = a_geometry("SAL")
    volume, _ = a_case(geometry)
    spacing = spacing_along(geometry, "RAS")
    prepared = preprocess_volume(
        volume, None, chosen(orientation="RAS", spacing_mm=spacing, modality="ct")
    )
    claims = LabelMerger.empty(geometry, 9, np.float32)
    scores = np.zeros((3, *prepared.geometry.shape), np.float32)
    scores[1], scores[2, :4] = 1, 3
    claims.adder(prepared, (0, 5, 9))(scores)
    assert set(np.unique(claims.labels)) == {0, 5, 9}
    softmax = [np.exp(1) / (2 + np.exp(1)), np.exp(3) / (1 + np.exp(1) + np.exp(3))]
    np.testing.assert_allclose(
        [claims.confidence[claims.labels == value].mean() for value in (5, 9)], softmax, rtol=1e-5
    )
    before = claims.labels.copy()
    claims.adder(prepared, (0, 1, 2))(scores)
    np.testing.assert_array_equal(claims.labels, before)
    claims.adder(prepared, (0, 4))(scores[:2] * 1.5)
    np.testing.assert_array_equal(claims.labels, np.where(before == 5, 4, before))


@pytest.mark.parametrize("logit", [-3.0, 0.0, 3.0])
def test_a_claim_is_as_strong_as_its_probability_however_many_there_are(logit):
    geometry = a_geometry("RAS")
    volume, _ = a_case(geometry)
    spacing = spacing_along(geometry, "RAS")
    prepared = preprocess_volume(
        volume, None, chosen(orientation="RAS", spacing_mm=spacing, modality="ct")
    )
    claims = LabelMerger.empty(geometry, 2, np.float32)
    scores = np.random.default_rng(0).normal(size=(3, *prepared.geometry.shape)).astype(np.float32)
    scores[1:] += logit
    claims.adder(prepared, (0, 1, 2))(scores)
    share = (scores.argmax(0) > 0).mean()
    assert {-3.0: share < 0.1, 0.0: 0.5 < share < 0.8, 3.0: share > 0.9}[logit]
    probability = softmax_of(scores, axis=0)
    expected = np.where(scores.argmax(0) > 0, probability.max(0), 0)
    found = claims.confidence[claims.confidence > 0]
    np.testing.assert_allclose(np.sort(found), np.sort(expected[expected > 0]), rtol=1e-5)


def test_the_way_back_survives_json():
    volume, labels = a_case(a_geometry("SAL", (0, 20, 0)))
    prepared = preprocess_volume(
        volume, labels, chosen(orientation="RAS", spacing_mm=(1.2, 1.2, 1.2), modality="ct")
    )
    frame = GridTransform.from_json({**json.loads(json.dumps(prepared.to_json())), "means": [1]})
    scores = one_hot(prepared.label, (0, 1, 3, 200))
    np.testing.assert_array_equal(
        restored_labels(scores, frame, (0, 1, 3, 200)),
        restored_labels(scores, prepared, (0, 1, 3, 200)),
    )


HEAD = {"crop": "head", "crop_threshold": 0.5, "crop_margin_voxels": 1}
PERCENTILES = Intensity(scheme="percentiles", percentiles=(5, 95))


def a_head(code="LIA"):
    """Values from 0 to 200 in a box of a scan that is 0 elsewhere, with one voxel of 250."""
    geometry = a_geometry(code, spacing_mm=(1.0, 1.0, 1.0))
    canonical = a_geometry("LIA", spacing_mm=(1.0, 1.0, 1.0))
    array = np.zeros((1, *canonical.shape), np.uint8)
    inside = array[0, 3:9, 4:10, 2:8]
    inside[:] = np.random.default_rng(0).integers(0, 200, inside.shape)
    array[0, 6, 6, 5] = 250
    return Volume(reorient(array, canonical, code)[0], geometry)


def head_contract(scheme=PERCENTILES, **fields):
    return Preprocessing(
        orientation="LIA",
        spacing_mm=(1, 1, 1),
        modality="mr",
        intensity=(scheme,),
        patch_size=(4, 4, 4),
        **{**HEAD, **fields},
    )


def test_the_crop_to_the_head_keeps_voxels_above_a_normalised_intensity():
    extremes = Intensity(scheme="percentiles", percentiles=(0, 100))
    volume = a_head()
    prepared = preprocess_volume(volume, None, head_contract(extremes))
    bright = np.argwhere(volume.array[0] > 125)
    assert prepared.box.start == tuple(bright.min(0) - 1)
    assert prepared.box.stop == tuple(bright.max(0) + 2)
    assert (prepared.minima, prepared.maxima) == ((0,), (250,))


@pytest.mark.parametrize("code", CODES)
def test_the_input_of_the_network_is_the_same_in_any_stored_orientation(code):
    expected = preprocess_volume(a_head(), None, head_contract())
    prepared = preprocess_volume(a_head(code), None, head_contract())
    np.testing.assert_array_equal(prepared.image, expected.image)
    assert prepared.statistics() == expected.statistics()


def test_percentiles_in_a_cube_do_not_depend_on_the_air_around_the_head():
    scheme = Intensity(scheme="percentiles", percentiles=(5, 95), cube_mm=12)
    volume = a_head()
    array = volume.array[:, 3:9, 4:10, 2:8]
    tight = Volume(array, Geometry((6, 6, 6), volume.geometry.affine))
    whole = preprocess_volume(volume, None, head_contract(scheme, crop="none"))
    assert preprocess_volume(tight, None, head_contract(scheme)).maxima == whole.maxima
    expected = np.sort(volume.array, axis=None)[-round(0.05 * 12**3) - 1]
    assert abs(whole.maxima[0] - expected) <= 2
    assert whole.minima == (0,)


def test_a_window_of_inference_is_not_larger_than_the_scan():
    windows = head_contract(window_size=(8, 20, 8))
    assert windows.window((5, 30, 9)) == (5, 20, 8)
    assert head_contract().window((5, 30, 9)) == (4, 4, 4)
