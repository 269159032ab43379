"""The plan's rules: spacing and patch stay within their bounds, and every warning says what to
change.
"""

from __future__ import annotations

from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fseft.planning.rules import (
    check_contract,
    describe_clipping,
    patch_size,
    rare_structures,
    resampled_shape,
    shrink_patch,
)
from fseft.schemas import (
    CaseFingerprint,
    ClassFingerprint,
    Contract,
    Fingerprint,
    Intensity,
    IntensityStats,
    Preprocessing,
)

spacings = st.tuples(*[st.floats(0.3, 8)] * 3)
shapes = st.tuples(*[st.integers(1, 600)] * 3)
divisors = st.tuples(*[st.sampled_from([1, 8, 16, 32])] * 3)
minimums = st.tuples(*[st.integers(1, 70)] * 3)
budgets = st.integers(1, 200**3)


def a_case(
    name="a",
    *,
    extents=None,
    volumes=None,
    orientation="RAS",
    spacing=(1, 1, 1),
    shape=(100, 90, 80),
):
    return CaseFingerprint(
        name=name,
        content="",
        shape=shape,
        shape_after_crop=shape,
        spacing_mm=spacing,
        orientation=orientation,
        volumes_mm3=volumes or {},
        extents_mm=extents or {},
    )


def a_fingerprint(
    *, extent=(50, 40, 30), volume=20000.0, low=-80, high=190, modality="ct", cases=2, **case
):
    return Fingerprint(
        dataset="d",
        reader="nnunet",
        content="",
        channels=("CT",),
        modality=modality,
        integer=True,
        labels={"liver": 1},
        cases=tuple(
            a_case(str(number), extents={"liver": extent}, volumes={"liver": volume}, **case)
            for number in range(cases)
        ),
        classes={
            "liver": ClassFingerprint(
                id=1,
                cases=cases,
                median_volume_mm3=volume,
                maximum_extent_mm=extent,
            )
        },
        intensities=(
            IntensityStats(
                mean=50,
                std=20,
                median=50,
                minimum=low,
                maximum=high,
                percentile_00_5=low,
                percentile_99_5=high,
            ),
        ),
    )


WINDOW = Contract(intensity={"ct": Intensity(scheme="window", low=-175, high=250)})


def warnings(fingerprint, contract=WINDOW, spacing=(1, 1, 1), patch=(64, 64, 64)):
    chosen = Preprocessing(
        orientation="RAS",
        spacing_mm=spacing,
        modality="ct",
        intensity=(contract.intensity["ct"],),
        patch_size=patch,
    )
    return check_contract(contract, fingerprint, chosen)


def test_shapes_follow_the_axes_of_the_network():
    found = a_fingerprint(orientation="SPL", spacing=(4, 1, 2), shape=(30, 90, 100))
    assert resampled_shape(found, "RAS", (2, 1, 2)) == (100, 90, 60)


@given(spacings, shapes, divisors, minimums, budgets)
def test_a_patch_is_divisible_within_its_bounds_and_within_the_budget(
    spacing, shape, divisor, minimum, budget
):
    patch = patch_size(spacing, shape, divisor, minimum, budget)
    assert all(side % step == 0 for side, step in zip(patch, divisor, strict=True))
    assert all(side >= least for side, least in zip(patch, minimum, strict=True))
    longest = zip(patch, shape, minimum, divisor, strict=True)
    assert all(side < max(size, least) + step for side, size, least, step in longest)
    assert prod(patch) <= budget or shrink_patch(patch, spacing, divisor, minimum) is None


@given(spacings, shapes, divisors, minimums, budgets, budgets)
def test_a_larger_budget_never_gives_fewer_voxels(spacing, shape, divisor, minimum, a, b):
    less, more = (
        prod(patch_size(spacing, shape, divisor, minimum, budget)) for budget in sorted((a, b))
    )
    assert less <= more


@given(spacings, shapes, divisors, minimums, budgets)
def test_a_smaller_patch_is_one_step_less_along_one_axis(spacing, shape, divisor, minimum, budget):
    patch = patch_size(spacing, shape, divisor, minimum, budget)
    smaller = shrink_patch(patch, spacing, divisor, minimum)
    if smaller is None:
        assert all(
            side - step < least for side, step, least in zip(patch, divisor, minimum, strict=True)
        )
        return
    steps = [old - new for old, new in zip(patch, smaller, strict=True)]
    assert sorted(step > 0 for step in steps) == [False, False, True]
    assert all(side >= least for side, least in zip(smaller, minimum, strict=True))


def test_a_patch_is_as_long_in_mm_along_each_axis():
    patch = patch_size((1, 1, 4), (500, 500, 200), (8, 8, 8), (32, 32, 8), 64**3)
    assert patch == (104, 104, 24)


def test_small_volumes_are_held_as_a_whole():
    assert patch_size((1, 1, 1), (35, 50, 36), (16, 16, 16), (32, 32, 32), 64**3) == (48, 64, 48)


def test_nothing_is_said_where_all_is_well():
    assert warnings(a_fingerprint()) == []


def test_a_plan_says_how_much_the_window_of_the_model_clips():
    clipping = describe_clipping(WINDOW, a_fingerprint(low=100, high=1500))
    assert clipping == "clips 89% of the range of the values of the structures in CT (100 to 1500)"
    assert warnings(a_fingerprint(low=100, high=1500)) == []


def test_a_window_that_misses_the_structures_clips_all():
    assert "clips 100%" in describe_clipping(WINDOW, a_fingerprint(low=400, high=1500))


def test_the_warning_of_a_structure_under_two_voxels_names_a_better_spacing():
    (warning,) = warnings(a_fingerprint(extent=(30, 20, 5)), spacing=(1, 1, 3))
    assert warning.startswith("liver is 30×20×5 mm")
    assert "1×1×2.5 mm would resolve it" in warning


def test_scattered_spots_count_by_their_volume():
    (warning,) = warnings(a_fingerprint(volume=27.0), spacing=(2, 2, 2))
    assert "1.5×1.5×1.5 mm would resolve it" in warning


def test_the_warning_of_a_structure_larger_than_the_patch_is_in_mm():
    (warning,) = warnings(a_fingerprint(extent=(130, 40, 30)))
    assert "liver (130×40×30 mm) is larger than the patch (64×64×64 mm)" in warning
    assert "2.03×1×1 mm" in warning


def test_another_modality_than_that_of_the_model_is_reported():
    (warning,) = warnings(a_fingerprint(modality="mr"))
    assert "trained on CT, not MR" in warning


def test_a_structure_in_one_of_several_cases_is_reported():
    found = a_fingerprint()
    rare = found.classes["liver"].model_copy(update={"cases": 1})
    found = found.model_copy(update={"classes": {"liver": rare}})
    (warning,) = rare_structures(found)
    assert warning.startswith("only one case has liver")
    assert rare_structures(found, ["spleen"]) == []


@pytest.mark.parametrize(
    "contract", [Contract(), Contract(intensity={"ct": Intensity(scheme="zscore")})]
)
def test_without_a_window_nothing_is_clipped(contract):
    assert describe_clipping(contract, a_fingerprint(low=400, high=1500)) == ""
