"""Scores agree with hand counts and brute force, and absent structures follow the stated rule."""

from __future__ import annotations

import csv
import io
import json
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fseft.errors import FseftError
from fseft.metrics.scores import Scores, StructureScore, score_case, summarise, to_csv

SPACING = (0.7, 1.5, 3.0)

masks = hnp.arrays(bool, (4, 5, 3)).filter(np.any)
pairs = st.tuples(masks, masks)
spacings = st.tuples(*[st.sampled_from([0.5, 0.97, 1.0, 2.5, 5.0])] * 3)
few = settings(max_examples=25, deadline=None)


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


def brute_force_hd95(a, b, spacing):
    distances = np.linalg.norm(surface(a, spacing)[:, None] - surface(b, spacing)[None], axis=-1)
    return max(np.percentile(distances.min(axis=1), 95), np.percentile(distances.min(axis=0), 95))


def score_structure(prediction, reference, spacing_mm, tolerance_mm=2.0):
    labels = [np.asarray(mask, bool).view(np.uint8) for mask in (prediction, reference)]
    return score_case(*labels, {"structure": 1}, spacing_mm, tolerance_mm)["structure"]


# ---- both present


def test_two_boxes_that_share_half_score_as_counted_by_hand():
    a, b = blank(np.s_[1:3, 1:5, 2:4]), blank(np.s_[2:4, 1:5, 2:4])
    score = score_structure(a, b, (2.0, 1.0, 1.0))
    assert score.state == "both-present"
    assert score.dice == 2 * 8 / 32
    assert score.nsd == 1  # shifted by 2 mm, which the tolerance of 2 mm just accepts
    assert score.hd95_mm == 2
    assert (score.volume_ml, score.reference_ml, score.volume_difference_ml) == (0.032, 0.032, 0)


def test_one_of_two_far_voxels_found_is_two_thirds_and_the_percentile_lies_between():
    found, both = blank((1, 1, 1)), blank((1, 1, 1), (1, 1, 6))
    score = score_structure(found, both, (1.0, 1.0, 3.0))
    assert score.dice == pytest.approx(2 / 3)
    assert score.nsd == pytest.approx(2 / 3)
    assert score.hd95_mm == pytest.approx(0.95 * 15)
    assert score.volume_difference_ml == pytest.approx(-0.003)


def test_nsd_weighs_surfaces_by_their_area_in_mm():
    slab = np.s_[2:4, 1:6, 1:7]
    hat = np.s_[4:5, 1:2, 1:2]
    pair = blank(slab), blank(slab, hat)
    flat, tall = (
        score_structure(*pair, (height, 1.0, 1.0), tolerance_mm=0.5).nsd for height in (1.0, 8.0)
    )
    assert tall < flat < 1  # the same voxel is a larger part of the surface when it is tall


@few
@given(pairs, spacings)
def test_hd95_is_what_brute_force_finds(pair, spacing):
    score = score_structure(*pair, spacing)
    assert score.hd95_mm == pytest.approx(brute_force_hd95(*pair, spacing), rel=1e-5)


@few
@given(pairs)
def test_dice_nsd_and_hd95_do_not_change_when_the_masks_are_swapped(pair):
    there, back = score_structure(*pair, SPACING), score_structure(*pair[::-1], SPACING)
    assert there.dice == back.dice
    assert there.nsd == pytest.approx(back.nsd, rel=1e-5)
    assert there.hd95_mm == back.hd95_mm
    assert there.volume_difference_ml == -back.volume_difference_ml


@few
@given(masks)
def test_a_mask_against_itself_is_perfect(mask):
    score = score_structure(mask, mask, SPACING, tolerance_mm=0)
    assert (score.dice, score.nsd, score.hd95_mm, score.volume_difference_ml) == (1, 1, 0, 0)


@few
@given(pairs, st.tuples(*[st.tuples(st.integers(0, 4), st.integers(0, 4))] * 3))
def test_neither_the_image_around_nor_the_place_in_it_changes_a_score(pair, margins):
    alone = score_structure(*pair, SPACING)
    embedded = score_structure(*(np.pad(mask, margins) for mask in pair), SPACING)
    assert embedded.model_dump() == pytest.approx(alone.model_dump())


@few
@given(pairs, st.lists(st.floats(0, 12), min_size=2, max_size=4))
def test_nsd_grows_with_the_tolerance(pair, tolerances):
    values = [score_structure(*pair, SPACING, tolerance).nsd for tolerance in sorted(tolerances)]
    assert values == sorted(values)
    assert 0 <= values[0] <= values[-1] <= 1


def test_the_crop_gives_what_monai_gives_on_the_whole_image():
    import torch
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    rng = np.random.default_rng(3)
    a, b = np.zeros((2, 20, 24, 16), bool)
    a[3:12, 5:14, 4:12] = rng.random((9, 9, 8)) < 0.7
    b[4:14, 4:12, 5:11] = rng.random((10, 8, 6)) < 0.7
    options = {"include_background": True, "spacing": SPACING}
    tensors = [torch.from_numpy(mask[None, None]) for mask in (a, b)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        nsd = compute_surface_dice(*tensors, [1.0], use_subvoxels=True, **options)
        hd95 = compute_hausdorff_distance(*tensors, percentile=95, **options)
    score = score_structure(a, b, SPACING, tolerance_mm=1.0)
    assert score.nsd == pytest.approx(float(nsd))
    assert score.hd95_mm == pytest.approx(float(hd95))


def test_a_single_voxel_in_a_corner_is_scored():
    score = score_structure(blank((0, 0, 0)), blank((0, 0, 1)), (1.0, 1.0, 4.0))
    assert (score.dice, score.hd95_mm) == (0, 4)
    assert 0 <= score.nsd < 1


def test_an_image_full_of_the_structure_has_a_surface_at_its_border():
    score = score_structure(np.ones((3, 4, 5), bool), np.ones((3, 4, 5), bool), SPACING)
    assert (score.dice, score.nsd, score.hd95_mm) == (1, 1, 0)


def test_scoring_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score_structure(blank((1, 1, 1)), blank((1, 1, 2)), SPACING)


def test_whole_numbers_are_as_good_as_floats_for_the_spacing():
    pair = blank((1, 1, 1)), blank((1, 3, 1))
    assert score_structure(*pair, (1.5, 1, 1), 2) == score_structure(*pair, (1.5, 1.0, 1.0), 2.0)


# ---- absent


@pytest.mark.parametrize(
    ("prediction", "reference", "state"),
    [(blank(), blank((2, 2, 2)), "missed"), (blank((2, 2, 2)), blank(), "false-positive")],
)
def test_what_is_in_one_alone_scores_zero_at_the_diagonal_of_the_image(
    prediction, reference, state
):
    score = score_structure(prediction, reference, (1.0, 2.0, 0.5))
    assert (score.dice, score.nsd, score.state) == (0, 0, state)
    assert score.hd95_mm == pytest.approx(math.sqrt(6**2 + 14**2 + 4**2))


def test_what_is_in_neither_has_no_metrics():
    score = score_structure(blank(), blank(), SPACING)
    assert (score.dice, score.nsd, score.hd95_mm, score.state) == (None, None, None, "both-empty")
    assert (score.volume_ml, score.reference_ml, score.volume_difference_ml) == (0, 0, 0)


# ---- cases


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int64])
def test_each_structure_of_a_case_scores_as_its_mask_alone(dtype):
    rng = np.random.default_rng(5)
    prediction, reference = rng.integers(0, 4, (2, 6, 7, 5)).astype(dtype)
    ids = {"three": 3, "one": 1, "absent": 200}
    scores = score_case(prediction, reference, ids, SPACING)
    assert list(scores) == list(ids)
    for name, value in ids.items():
        assert scores[name] == score_structure(prediction == value, reference == value, SPACING)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"reference": np.zeros((3, 3, 4), int)}, "(3, 3, 4)"),
        ({"spacing_mm": (1.0, 0.0, 1.0)}, "(1.0, 0.0, 1.0) mm"),
        ({"spacing_mm": (1.0, 1.0)}, "three lengths"),
        ({"tolerance_mm": -1.0}, "-1.0 mm"),
        ({"ids": {"background": 0}}, "background has the label 0"),
    ],
)
def test_nonsense_is_refused_with_its_value(change, told):
    good = {
        "prediction": np.zeros((3, 3, 3), int),
        "reference": np.zeros((3, 3, 3), int),
        "ids": {"one": 1},
        "spacing_mm": (1.0, 1.0, 1.0),
    }
    with pytest.raises(FseftError) as caught:
        score_case(**(good | change))
    assert told in str(caught.value)


# ---- summary


def structure(dice, state="both-present", hd95=4.0):
    return StructureScore(
        dice=dice,
        nsd=dice,
        hd95_mm=None if dice is None else hd95,
        volume_ml=1,
        reference_ml=1,
        volume_difference_ml=0,
        state=state,
    )


CASES = {
    "a": {"liver": structure(0.9), "spleen": structure(None, "both-empty")},
    "b": {"liver": structure(0.7), "spleen": structure(0.0, "missed", hd95=100.0)},
    "c": {"liver": structure(0.0, "false-positive"), "gland": structure(None, "both-empty")},
}


def test_a_class_is_the_mean_over_its_cases_and_the_whole_is_the_mean_over_its_classes():
    scores = summarise(CASES, tolerance_mm=2.0)
    liver, spleen, gland = (scores.classes[name] for name in ("liver", "spleen", "gland"))
    assert liver.dice == pytest.approx(1.6 / 3)
    assert liver.dice_std == pytest.approx(np.std([0.9, 0.7, 0.0], ddof=1))
    assert (spleen.dice, spleen.dice_std, spleen.hd95_mm) == (0, None, 100)
    assert gland.dice is None
    assert scores.mean_dice == pytest.approx(0.8 / 3)
    assert scores.mean_hd95_mm == pytest.approx((4 + 100) / 2)


def test_misses_inventions_and_doubly_empty_cases_are_counted():
    classes = summarise(CASES, tolerance_mm=2.0).classes
    counts = {
        name: (c.cases, c.missed, c.false_positive, c.both_empty) for name, c in classes.items()
    }
    assert counts == {"liver": (3, 0, 1, 0), "spleen": (2, 1, 0, 1), "gland": (1, 0, 0, 1)}


def test_no_cases_have_no_mean():
    assert summarise({}, tolerance_mm=2.0).mean_dice is None


def test_the_document_survives_json_and_leads_with_the_mean():
    scores = summarise(CASES, tolerance_mm=2.0)
    text = scores.model_dump_json()
    assert Scores.model_validate_json(text) == scores
    assert list(json.loads(text))[:2] == ["schema_version", "mean_dice"]


def test_csv_has_a_line_per_structure_and_empty_cells_where_nothing_is_defined():
    rows = list(csv.DictReader(io.StringIO(to_csv(summarise(CASES, tolerance_mm=2.0)))))
    assert [(row["case"], row["structure"]) for row in rows] == [
        ("a", "liver"),
        ("a", "spleen"),
        ("b", "liver"),
        ("b", "spleen"),
        ("c", "liver"),
        ("c", "gland"),
    ]
    assert (rows[0]["dice"], rows[1]["dice"], rows[1]["state"]) == ("0.9", "", "both-empty")
