"""Scores agree with hand counts and brute force, and absent structures follow the stated rule."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fseft.errors import FseftError
from fseft.metrics.scoring import score_case
from fseft.metrics.selection import select_metrics

SPACING = (0.7, 1.5, 3.0)
METRICS = select_metrics(["dice", "nsd", "hd95", "assd", "volume_difference"])

masks = hnp.arrays(bool, (4, 5, 3)).filter(np.any)
pairs = st.tuples(masks, masks)
spacings = st.tuples(*[st.sampled_from([0.5, 0.97, 1.0, 2.5, 5.0])] * 3)
few = settings(max_examples=25)


@few
@given(labels=hnp.arrays(np.uint8, (2, 4, 5, 3), elements=st.integers(0, 3)))
def test_a_region_is_scored_as_the_union_of_its_values(labels):
    prediction, reference = labels
    union = [np.isin(side, (1, 3)).astype(np.uint8) for side in labels]
    region = score_case(prediction, reference, {"r": (1, 3)}, SPACING, metrics=METRICS)
    assert region == score_case(*union, {"r": 1}, SPACING, metrics=METRICS)


def blank(*voxels, shape=(6, 7, 8)):
    mask = np.zeros(shape, bool)
    for voxel in voxels:
        mask[voxel] = True
    return mask


def surface(mask, spacing):
    """Centres, in mm, of the voxels with a face neighbour outside the mask or the image."""
    padded = np.pad(mask, 1)
    inside = np.ones_like(padded)
    for axis in range(3):
        for step in (-1, 1):
            inside &= np.roll(padded, step, axis)
    return (np.argwhere(padded & ~inside) - 1) * spacing


def surface_distances(a, b, spacing):
    differences = surface(a, spacing)[:, None] - surface(b, spacing)[None]
    distances = np.linalg.norm(differences, axis=-1)
    return distances.min(axis=1), distances.min(axis=0)


def score_structure(prediction, reference, spacing_mm, tolerance_mm=2.0):
    prediction, reference = (mask.astype(np.uint8) for mask in (prediction, reference))
    ids = {"structure": 1}
    scores = score_case(prediction, reference, ids, spacing_mm, tolerance_mm, metrics=METRICS)
    return scores["structure"]


def values(*arguments, **options):
    return score_structure(*arguments, **options).metrics


# ---- present in both


def test_two_boxes_that_share_half_score_as_counted_by_hand():
    a = blank(np.s_[1:3, 1:5, 2:4])
    b = blank(np.s_[2:4, 1:5, 2:4])
    score = score_structure(a, b, (2.0, 1.0, 1.0))
    assert score.state == "both-present"
    assert score.metrics["dice"] == 2 * 8 / 32
    assert score.metrics["nsd"] == 1  # shifted by 2 mm, which the tolerance of 2 mm just accepts
    assert score.metrics["hd95_mm"] == 2
    assert score.metrics["volume_difference_ml"] == 0
    assert (score.volume_ml, score.reference_ml) == (0.032, 0.032)


def test_predicting_one_of_two_far_voxels_scores_two_thirds():
    both = blank((1, 1, 1), (1, 1, 6))
    metrics = values(blank((1, 1, 1)), both, (1.0, 1.0, 3.0))
    assert metrics["dice"] == pytest.approx(2 / 3)
    assert metrics["nsd"] == pytest.approx(2 / 3)
    assert metrics["hd95_mm"] == pytest.approx(0.95 * 15)
    assert metrics["assd_mm"] == pytest.approx(15 / 3)
    assert metrics["volume_difference_ml"] == pytest.approx(-0.003)


def test_nsd_weights_surfaces_by_their_area_in_mm():
    slab = blank(np.s_[2:4, 1:6, 1:7])
    with_hat = slab | blank(np.s_[4:5, 1:2, 1:2])
    flat = values(slab, with_hat, (1.0, 1.0, 1.0), tolerance_mm=0.5)["nsd"]
    tall = values(slab, with_hat, (8.0, 1.0, 1.0), tolerance_mm=0.5)["nsd"]
    assert tall < flat < 1  # the same voxel is a larger part of the surface when it is tall


@few
@given(pairs, spacings)
def test_distances_agree_with_brute_force(pair, spacing):
    metrics = values(*pair, spacing)
    there, back = surface_distances(*pair, spacing)
    hd95 = max(np.percentile(there, 95), np.percentile(back, 95))
    assert metrics["hd95_mm"] == pytest.approx(hd95, rel=1e-5)
    assd = np.concatenate([there, back]).mean()
    assert metrics["assd_mm"] == pytest.approx(assd, rel=1e-5)


@few
@given(pairs)
def test_swapping_the_masks_changes_the_sign_of_the_volume_difference_only(pair):
    a, b = pair
    there, back = values(a, b, SPACING), values(b, a, SPACING)
    difference = there.pop("volume_difference_ml")
    assert difference == -back.pop("volume_difference_ml")
    assert there == pytest.approx(back, rel=1e-5)


@few
@given(masks)
def test_a_mask_scores_perfectly_against_itself(mask):
    metrics = values(mask, mask, SPACING, tolerance_mm=0)
    assert metrics == {
        "dice": 1,
        "nsd": 1,
        "hd95_mm": 0,
        "assd_mm": 0,
        "volume_difference_ml": 0,
    }


@few
@given(pairs, st.tuples(*[st.tuples(st.integers(0, 4), st.integers(0, 4))] * 3))
def test_the_surrounding_image_does_not_change_a_score(pair, margins):
    embedded = [np.pad(mask, margins) for mask in pair]
    assert values(*embedded, SPACING) == pytest.approx(values(*pair, SPACING))


@few
@given(pairs, st.lists(st.floats(0, 12), min_size=2, max_size=4))
def test_nsd_grows_with_the_tolerance(pair, tolerances):
    nsd = [values(*pair, SPACING, tolerance)["nsd"] for tolerance in sorted(tolerances)]
    assert nsd == sorted(nsd)
    assert 0 <= nsd[0] <= nsd[-1] <= 1


@pytest.mark.parametrize("seed", range(5))
def test_the_cropped_masks_score_as_monai_scores_the_whole_image(seed):
    import torch
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    rng = np.random.default_rng(seed)
    a, b = np.zeros((2, 20, 24, 16), bool)
    a[3:12, 5:14, 4:12] = rng.random((9, 9, 8)) < 0.7
    b[4:14, 4:12, 5:11] = rng.random((10, 8, 6)) < 0.7
    tensors = [torch.from_numpy(mask[None, None]) for mask in (a, b)]
    options = {"include_background": True, "spacing": SPACING}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        nsd = compute_surface_dice(*tensors, [1.0], use_subvoxels=True, **options)
        hd95 = compute_hausdorff_distance(*tensors, percentile=95, **options)
    metrics = values(a, b, SPACING, tolerance_mm=1.0)
    assert metrics["nsd"] == pytest.approx(float(nsd))
    assert metrics["hd95_mm"] == pytest.approx(float(hd95))


def test_a_single_voxel_in_a_corner_is_scored():
    metrics = values(blank((0, 0, 0)), blank((0, 0, 1)), (1.0, 1.0, 4.0))
    assert (metrics["dice"], metrics["hd95_mm"]) == (0, 4)
    assert 0 <= metrics["nsd"] < 1


def test_a_structure_that_fills_the_image_has_its_surface_at_the_border():
    full = np.ones((3, 4, 5), bool)
    metrics = values(full, full, SPACING)
    assert (metrics["dice"], metrics["nsd"], metrics["hd95_mm"]) == (1, 1, 0)


def test_scoring_emits_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score_structure(blank((1, 1, 1)), blank((1, 1, 2)), SPACING)


def test_spacing_and_tolerance_may_be_integers():
    a, b = blank((1, 1, 1)), blank((1, 3, 1))
    assert values(a, b, (1.5, 1, 1), 2) == values(a, b, (1.5, 1.0, 1.0), 2.0)


# ---- absent


@pytest.mark.parametrize(
    ("prediction", "reference", "state"),
    [(blank(), blank((2, 2, 2)), "missed"), (blank((2, 2, 2)), blank(), "false-positive")],
)
def test_a_structure_in_only_one_mask_gets_the_worst_score(prediction, reference, state):
    score = score_structure(prediction, reference, (1.0, 2.0, 0.5))
    assert (score.metrics["dice"], score.metrics["nsd"], score.state) == (0, 0, state)
    assert score.metrics["hd95_mm"] == pytest.approx(math.sqrt(6**2 + 14**2 + 4**2))
    assert abs(score.metrics["volume_difference_ml"]) == 0.001


def test_a_structure_in_neither_mask_has_no_metrics():
    score = score_structure(blank(), blank(), SPACING)
    assert set(score.metrics.values()) == {None}
    assert score.state == "both-empty"
    assert (score.volume_ml, score.reference_ml) == (0, 0)


# ---- cases


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int64])
def test_each_structure_of_a_case_scores_as_its_mask(dtype):
    rng = np.random.default_rng(5)
    prediction, reference = rng.integers(0, 4, (2, 6, 7, 5)).astype(dtype)
    ids = {"three": 3, "one": 1, "absent": 200}
    scores = score_case(prediction, reference, ids, SPACING, metrics=METRICS)
    assert list(scores) == list(ids)
    for name, value in ids.items():
        expected = score_structure(prediction == value, reference == value, SPACING)
        assert scores[name] == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reference": np.zeros((3, 3, 4), int)}, "(3, 3, 4)"),
        ({"spacing_mm": (1.0, 0.0, 1.0)}, "(1.0, 0.0, 1.0) mm"),
        ({"spacing_mm": (1.0, math.nan, 1.0)}, "nan"),
        ({"spacing_mm": (1.0, 1.0)}, "three lengths"),
        ({"tolerance_mm": -1.0}, "-1.0 mm"),
        ({"tolerance_mm": math.inf}, "inf mm"),
        ({"ids": {"background": 0}}, "background has the label 0"),
    ],
)
def test_invalid_arguments_are_refused_with_their_value(change, message):
    arguments = {
        "prediction": np.zeros((3, 3, 3), int),
        "reference": np.zeros((3, 3, 3), int),
        "ids": {"one": 1},
        "spacing_mm": (1.0, 1.0, 1.0),
    }
    with pytest.raises(FseftError) as caught:
        score_case(**(arguments | change), metrics=METRICS)
    assert message in str(caught.value)
