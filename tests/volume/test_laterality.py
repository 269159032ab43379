"""A pair that was drawn as one is divided by the midline of the body, wherever the body is in
the image.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fseft.volume.geometry import Geometry
from fseft.volume.image import Volume, read_labels, read_volume
from fseft.volume.laterality import LeftRightPair, Midline, find_midline, split_labels, split_sides

SPACING = (4.0, 4.0, 5.0)
SHAPE = (100, 80, 30)
MIDDLE = np.multiply(SHAPE, SPACING) / 2


def frame(shape=SHAPE):
    """Coordinates of all voxels in mm, (i, j, k)."""
    return np.meshgrid(
        *(np.arange(n) * mm for n, mm in zip(shape, SPACING, strict=True)), indexing="ij"
    )


def turned(shift=0.0, roll=0.0):
    """Coordinates in a body that is `shift` mm to the right and is rolled by `roll` radians."""
    i, j, k = frame()
    x, y = i - MIDDLE[0] - shift, j - MIDDLE[1]
    return np.cos(roll) * x + np.sin(roll) * y, -np.sin(roll) * x + np.cos(roll) * y, k - MIDDLE[2]


def ball(centre, radii, at):
    return sum(((x - c) / r) ** 2 for x, c, r in zip(at, centre, radii, strict=True)) <= 1


def body(at):
    """A trunk without end, on a table that is not symmetric to it."""
    x, y, _ = at
    trunk = (x / 150) ** 2 + (y / 105) ** 2 <= 1
    table = (abs(y + 125) < 8) & (x > -110)
    return trunk | table


def kidneys(at):
    """Left and right."""
    return ball((-60, -40, 0), (30, 30, 45), at), ball((60, -40, 0), (30, 30, 45), at)


def agreement(halves, left, right):
    pair = left | right
    return (
        np.mean(halves.left[pair] == left[pair])
        if (halves.left | halves.right)[pair].all()
        else 0.0
    )


@settings(max_examples=15, deadline=None)
@given(shift=st.floats(-40, 40), roll=st.floats(-0.25, 0.25))
def test_the_midline_is_that_of_the_body_wherever_it_is(shift, roll):
    at = turned(shift, roll)
    midline = find_midline(body(at), SPACING)
    assert not midline.is_uncertain
    right = midline.right_of_mm(*frame()) > 0
    deep = abs(at[0]) > 15
    inside = body(at) & (abs(at[1]) < 100)
    assert (right == (at[0] > 0))[deep & inside].mean() > 0.99


@settings(max_examples=10, deadline=None)
@given(shift=st.floats(-40, 40), roll=st.floats(-0.25, 0.25))
def test_a_pair_is_divided_without_a_warning(shift, roll):
    at = turned(shift, roll)
    left, right = kidneys(at)
    halves = split_sides(left | right, find_midline(body(at), SPACING), SPACING)
    assert halves.warnings == ()
    assert np.array_equal(halves.left, left)
    assert np.array_equal(halves.right, right)


def test_the_image_s_middle_does_not_matter():
    at = turned(shift=100)
    left, right = kidneys(at)
    kept = slice(30, None)  # the field of view begins next to the body and cuts its right side off
    midline = find_midline(body(at)[kept], SPACING)
    halves = split_sides((left | right)[kept], midline, SPACING)
    assert halves.warnings == ()
    assert np.array_equal(halves.right, right[kept])


def test_the_pair_of_a_body_of_which_one_side_is_visible_is_divided_with_a_warning():
    at = turned()
    left, _ = kidneys(at)
    kept = slice(int((MIDDLE[0] - 80) // SPACING[0]), int((MIDDLE[0] - 40) // SPACING[0]))
    halves = split_sides(left[kept], find_midline(body(at)[kept], SPACING), SPACING)
    assert halves.warnings
    assert (halves.left ^ halves.right)[left[kept]].all()


def test_two_components_on_one_side_are_distinguished_by_their_order():
    left, right = kidneys(turned())
    halves = split_sides(left | right, Midline(100.0, (0.0, 0.0)), SPACING)
    assert halves.warnings == (
        "both components are on the right of the midline: assigned by their order",
    )
    assert np.array_equal(halves.right, right)


def test_a_structure_on_one_side_only_is_reported_where_both_are_expected():
    left, _ = kidneys(turned())
    midline = Midline(MIDDLE[0], (0.0, 0.0))
    assert split_sides(left, midline, SPACING).warnings == ("no component is on the right",)
    lesion = split_sides(left, midline, SPACING, expect_both=False)
    assert lesion.warnings == ()
    assert np.array_equal(lesion.left, left)
    assert not lesion.right.any()


def test_a_horseshoe_kidney_is_divided_at_its_isthmus():
    at = turned()
    left, right = kidneys(at)
    isthmus = ball((6, -40, 0), (60, 7, 7), at)  # narrow, and not quite in the middle
    halves = split_sides(left | right | isthmus, find_midline(body(at), SPACING), SPACING)
    assert halves.warnings == ("one component crosses the midline: divided at its narrowest place",)
    assert agreement(halves, left, right) == 1.0
    assert np.array_equal(halves.left | halves.right, left | right | isthmus)


def test_what_has_no_narrow_place_is_cut_at_the_midline():
    at = turned(shift=12)
    block = ball((0, 0, 0), (90, 40, 40), at)
    halves = split_sides(block, find_midline(body(at), SPACING), SPACING)
    assert halves.warnings == ("one component crosses the midline: divided at the midline",)
    assert agreement(halves, block & (at[0] <= 0), block & (at[0] > 0)) > 0.97


def test_a_slight_overhang_and_specks_cause_no_warning():
    at = turned()
    left, right = ball((-46, -40, 0), (50, 30, 45), at), ball((60, -40, 0), (30, 30, 45), at)
    right &= at[0] > 20
    left &= at[0] < 8
    speck = ball((0, 60, 0), (8, 5, 6), at)
    halves = split_sides(left | right | speck, Midline(MIDDLE[0], (0.0, 0.0)), SPACING)
    assert halves.warnings == ()
    assert np.array_equal(halves.left & ~speck, left)


@pytest.mark.parametrize("mask", [np.zeros((4, 4, 4), bool), np.ones((1, 1, 1), bool)])
def test_nothing_and_a_single_voxel_are_divided_too(mask):
    halves = split_sides(mask, find_midline(np.zeros_like(mask), SPACING), SPACING)
    assert np.array_equal(halves.left | halves.right, mask)
    assert not (halves.left & halves.right).any()


@pytest.mark.parametrize("orientation", [(1, 1, 1), (-1, -1, 1)])
def test_a_label_map_is_divided_on_its_own_grid(orientation):
    at = turned()
    left, right = kidneys(at)
    spleen = ball((-90, 20, 0), (20, 20, 30), at)
    image = np.where(body(at), 40, -1000).astype(np.int16)
    labels = (3 * (left | right) + 2 * spleen).astype(np.uint8)
    flips = tuple(slice(None, None, step) for step in orientation)
    affine = np.diag(
        [-SPACING[0] * orientation[0], -SPACING[1] * orientation[1], SPACING[2], 1]
    )  # LPS: R, A, S
    geometry = Geometry(SHAPE, affine)
    divided, doubts = split_labels(
        Volume(labels[flips][None], geometry),
        Volume(image[flips][None], geometry),
        {3: LeftRightPair(300, 301)},
        "ct",
    )
    assert doubts == {3: ()}
    assert divided.geometry is geometry
    assert np.array_equal(divided.array[0][flips], 300 * left + 301 * right + 2 * spleen)


def test_a_label_map_without_the_pair_stays_as_it_is():
    labels = Volume(np.ones((1, 2, 2, 2), np.uint8), Geometry((2, 2, 2), np.eye(4)))
    assert split_labels(labels, labels, {3: LeftRightPair(4, 5)}, "ct") == (labels, {})


# --- real volumes ---------------------------------------------------------------------------------


def shares_kept(image, labels, sides, modality="ct"):
    """Merge left and right of some structures, divide them again: the share of voxels that come
    back, and doubts.
    """
    merged = labels.array.astype(np.uint16)
    pairs = {}
    for number, (left, right) in enumerate(sides.values(), start=500):
        merged[np.isin(merged, (left, right))] = number
        pairs[number] = LeftRightPair(left, right)
    divided, doubts = split_labels(Volume(merged, labels.geometry), image, pairs, modality)
    found = {}
    for name, number in zip(sides, pairs, strict=True):
        of_pair = np.isin(labels.array, sides[name])
        found[name] = (float((divided.array == labels.array)[of_pair].mean()), doubts[number])
    return found


@pytest.mark.real
def test_merged_organs_of_a_torso_come_back(real_data):
    folder = real_data / "torso_ct"
    image, labels = (
        read_volume(folder / "example_ct.nii.gz"),
        read_labels(folder / "example_seg_fast_force_split.nii.gz"),
    )
    lungs = {10: 10, 11: 10, 12: 12, 13: 12, 14: 12}  # lobes, as two lungs
    table = np.arange(256)
    table[list(lungs)] = list(lungs.values())
    labels = Volume(table[labels.array].astype(np.uint8), labels.geometry)
    sides = {
        "kidney": (3, 2),
        "adrenal": (9, 8),
        "lung": (10, 12),
        "femur": (75, 76),
        "gluteus": (80, 81),
        "hip": (77, 78),
    }
    found = shares_kept(image, labels, sides)
    assert {name: share for name, (share, _) in found.items() if share < 0.999} == {}
    assert [name for name, (_, doubts) in found.items() if doubts] == [
        "hip"
    ]  # they touch at the sacrum


@pytest.mark.real
def test_merged_parotids_of_twenty_heads_come_back(real_data):
    """`pytest -m real -s` prints the agreement of each."""
    shares = {}
    for path in sorted((real_data / "headneck" / "labelsTr").iterdir()):
        labels = read_labels(path)
        if len(shares) < 20 and {3, 4} <= set(np.unique(labels.array)):
            name = path.name.removesuffix(".nii.gz")
            image = read_volume(real_data / "headneck" / "imagesTr" / f"{name}_0000.nii.gz")
            shares[name] = shares_kept(image, labels, {"parotid": (4, 3)})["parotid"]
    sys.stdout.writelines(
        f"{name}: {share:.4f} {'; '.join(doubts)}\n" for name, (share, doubts) in shares.items()
    )
    assert len(shares) == 20
    assert min(share for share, _ in shares.values()) > 0.999
    assert [name for name, (_, doubts) in shares.items() if doubts] == []
