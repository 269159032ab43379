"""The grid: its patch holds enough of the body, follows the slices, and loses no structure."""

from __future__ import annotations

from itertools import permutations, product
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fseft.planning.spacing import GridProblem, choose_grid, native_spacing
from fseft.schemas import CaseFingerprint, ClassFingerprint, Contract, Fingerprint, IntensityStats
from fseft.volume.fingerprint import permute_to_orientation

WORLD = ("LR", "PA", "SI")
ORIENTATIONS = [
    "".join(pair[side] for pair, side in zip(order, sides, strict=True))
    for order in permutations(WORLD)
    for sides in product((0, 1), repeat=3)
]
TRAINED = Contract(
    patch_size=(48, 48, 48), spacing_range_mm=(1.0, 5.7), structure_range_voxels=(5.0, 28.0)
)
STATS = IntensityStats(
    mean=0, std=1, median=0, minimum=0, maximum=1, percentile_00_5=0, percentile_99_5=1
)


def scan(name, shape, spacing, structures, orientation="RAS"):
    """A case; spacing, shape and extents of the structures along the axes of the file."""
    return CaseFingerprint(
        name=name,
        content="",
        shape=shape,
        shape_after_crop=shape,
        spacing_mm=spacing,
        orientation=orientation,
        volumes_mm3={key: volume_ml * 1000 for key, (volume_ml, _) in structures.items()},
        extents_mm={key: extent for key, (_, extent) in structures.items()},
    )


def dataset(cases):
    names = sorted({name for case in cases for name in case.volumes_mm3})
    classes = {}
    for value, name in enumerate(names, start=1):
        volumes = [case.volumes_mm3[name] for case in cases if name in case.volumes_mm3]
        classes[name] = ClassFingerprint(
            id=value, cases=len(volumes), median_volume_mm3=float(np.median(volumes))
        )
    return Fingerprint(
        dataset="d",
        reader="nnunet",
        content="",
        channels=("CT",),
        modality="ct",
        integer=True,
        labels={name: entry.id for name, entry in classes.items()},
        cases=tuple(cases),
        classes=classes,
        intensities=(STATS,),
    )


def grid(fingerprint, contract=TRAINED, *, budget=64**3, **options):
    divisor, minimum = (16, 16, 16), (32, 32, 32)
    return choose_grid(GridProblem(contract, fingerprint, divisor, minimum, budget, **options))


HEART = {"ventricle": (150, (90, 100, 80)), "myocardium": (120, (80, 90, 75))}
ABDOMEN = {
    "liver": (1500, (200, 160, 180)),
    "spleen": (220, (100, 90, 110)),
    "aorta": (60, (60, 70, 250)),
    "adrenal_gland": (4, (22, 28, 30)),
}


def stack(orientation, number=0):
    """A short-axis stack of 10 slices, stored along the axes of `orientation`."""
    spacing = permute_to_orientation((1.25, 1.25, 8.0), "RAS", orientation)
    shape = tuple(map(int, permute_to_orientation((256, 216, 10), "RAS", orientation)))
    structures = {
        name: (volume, permute_to_orientation(extent, "RAS", orientation))
        for name, (volume, extent) in HEART.items()
    }
    return scan(f"stack_{number}", shape, spacing, structures, orientation)


def body(spacing=(0.8, 0.8, 2.5), structures=ABDOMEN, size_mm=(380, 280, 420)):
    shape = tuple(int(side / step) for side, step in zip(size_mm, spacing, strict=True))
    return dataset([scan(f"body_{number}", shape, spacing, structures) for number in range(3)])


# --- native spacing -----------------------------------------------------------------------------


def test_the_native_spacing_is_the_median():
    cases = [scan(str(z), (90, 90, 90), (1.5, 1.2, z), {}) for z in (1.3, 1.6, 2.0)]
    assert native_spacing(dataset(cases), "RAS")[0] == (1.5, 1.2, 1.6)


@settings(deadline=None)
@given(st.lists(st.sampled_from(ORIENTATIONS), min_size=1, max_size=6))
def test_stacks_in_any_orientations_are_planned_at_one_isotropic_spacing(orientations):
    stacks = [
        scan(
            str(number),
            (256, 216, 10),
            (1.25, 1.25, 8.0),
            {},
            orientation,
        )
        for number, orientation in enumerate(orientations)
    ]
    spacing, reason = native_spacing(dataset(stacks), "RAS")
    assert spacing == (2.3, 2.3, 2.3)
    assert "1.25×1.25×8 mm" in reason


@settings(deadline=None)
@given(
    st.tuples(*[st.floats(0.5, 4)] * 3),
    st.sampled_from(ORIENTATIONS),
    st.sampled_from([TRAINED, Contract()]),
)
def test_the_orientation_of_the_files_permutes_the_plan(spacing, orientation, contract):
    """The same scans stored along other anatomical axes are planned with permuted axes."""
    shape = (300, 260, 90)
    turned = dataset([scan("a", shape, spacing, HEART, orientation)])
    upright = dataset([scan("a", shape, spacing, HEART, "RAS")])
    chosen, expected = grid(turned, contract), grid(upright, contract)
    back = permute_to_orientation(chosen.spacing_mm, "RAS", orientation)
    assert back == expected.spacing_mm
    assert permute_to_orientation(chosen.patch_size, "RAS", orientation) == expected.patch_size


def test_one_stack_of_another_orientation_among_many_does_not_count():
    cases = [scan(str(n), (90, 90, 60), (1.0, 1.0, 1.8), {}, "RAS") for n in range(19)]
    cases.append(scan("coronal", (90, 90, 60), (1.0, 1.0, 1.8), {}, "RSA"))
    assert native_spacing(dataset(cases), "RAS")[0] == (1.0, 1.0, 1.8)


# --- spacing and patch together -----------------------------------------------------------------


def test_cardiac_stacks_are_planned_where_a_patch_holds_the_heart():
    chosen = grid(dataset([stack("RAS"), stack("RSA", 1)]))
    assert chosen.spacing_mm == (2.3, 2.3, 2.3)
    assert all(side * 48 >= 100 for side in chosen.spacing_mm)


def test_abdominal_ct_is_coarsened_until_a_patch_holds_the_liver():
    chosen = grid(body())
    assert chosen.spacing_mm == pytest.approx((4.2, 4.2, 4.2), abs=0.3)
    assert "not liver (200×160×180 mm)" in chosen.rejected[0]
    assert chosen.warnings == ()


def test_a_short_training_is_coarser_so_that_crops_show_most_structures():
    long, short = grid(body()), grid(body(), foreground_mm=(260, 210, 250))
    assert max(long.spacing_mm) < min(short.spacing_mm) <= 5.7
    share = prod(
        min(1, 48 * side / extent)
        for side, extent in zip(short.spacing_mm, (260, 210, 250), strict=True)
    )
    assert share == pytest.approx(0.8, abs=0.05)
    assert "in a short training" in short.rejected[0]
    assert short.warnings == ()


def test_structures_that_are_close_together_do_not_coarsen_a_short_training():
    hearts = dataset([stack("RAS"), stack("RSA", 1)])
    assert grid(hearts, foreground_mm=(105, 100, 95)) == grid(hearts)


def test_a_larger_patch_keeps_a_finer_spacing():
    cpu, gpu = grid(body(), Contract(), budget=64**3), grid(body(), Contract(), budget=128**3)
    assert max(gpu.spacing_mm) < min(cpu.spacing_mm)


@settings(deadline=None)
@given(st.floats(0.7, 6), st.integers(32, 160))
def test_a_patch_holds_enough_or_the_smallest_structure_forbids_it(thickness, side):
    patch = (side // 16 * 16,) * 3
    found = body((0.8, 0.8, thickness))
    chosen = grid(found, Contract(patch_size=patch))
    holds = all(
        size * step >= extent - 1e-6
        for size, step, extent in zip(patch, chosen.spacing_mm, (200, 160, 180), strict=True)
    )
    share = prod(
        min(1.0, size * step / extent)
        for size, step, extent in zip(patch, chosen.spacing_mm, (380, 280, 420), strict=True)
    )
    smallest_mm = 4000 ** (1 / 3)
    assert holds or share >= 0.24 or max(chosen.spacing_mm) >= smallest_mm / 2 - 0.1


def test_whole_bodies_stay_within_the_sizes_of_the_pre_training():
    chosen = grid(body((0.98, 0.98, 6.0), size_mm=(500, 500, 1800)))
    assert max(chosen.spacing_mm) <= 5.7
    assert chosen.spacing_mm[0] == chosen.spacing_mm[1] == chosen.spacing_mm[2] > 3.5


def test_tiny_scans_keep_their_spacing():
    structures = {"anterior": (1.6, (20, 22, 16)), "posterior": (1.5, (18, 30, 20))}
    found = dataset([scan("a", (35, 50, 36), (1.0, 1.0, 1.0), structures)])
    trained = TRAINED.model_copy(update={"spacing_range_mm": (1.01, 5.7)})
    assert grid(found, trained).spacing_mm == (1.0, 1.0, 1.0)


def test_a_finer_spacing_than_in_the_pre_training_is_coarsened():
    found = dataset([scan("a", (200, 200, 200), (0.3, 0.3, 0.3), {"tooth": (1, (9, 9, 20))})])
    chosen = grid(found)
    assert chosen.spacing_mm == (1.0, 1.0, 1.0)
    assert "as the model was trained" in chosen.reason


def test_small_structures_bound_the_spacing_and_the_conflict_is_named():
    structures = {**ABDOMEN, "nodule": (0.05, (4, 4, 4))}
    chosen = grid(body(structures=structures))
    assert max(chosen.spacing_mm) < 2.5
    assert "would lose the smallest structures" in chosen.warnings[0]


def test_labels_that_do_not_survive_refine_the_spacing():
    def round_trip(spacing):
        return {"liver": 0.97, "adrenal_gland": 0.9 if spacing[0] < 3 else 0.4}

    chosen = grid(body(), round_trip=round_trip)
    assert 2.5 < chosen.spacing_mm[0] < 3
    assert any("adrenal_gland 0.40" in reason for reason in chosen.rejected)


@settings(deadline=None, max_examples=50)
@given(st.floats(0.3, 2))
def test_labels_that_survive_no_coarser_spacing_keep_that_of_the_files(side):
    tried = []

    def round_trip(spacing):
        assert spacing not in tried, "the same spacing is tried again"
        if spacing != native:
            tried.append(spacing)
        return {"vessel": 1.0 if spacing == native else 0.1}

    fingerprint = body((side, side, side), {"vessel": (1500, (200, 160, 180))})
    native, _ = native_spacing(fingerprint, "RAS")
    unlimited = Contract(patch_size=(48, 48, 48))
    assert grid(fingerprint, unlimited, round_trip=round_trip).spacing_mm == native


def test_the_contract_and_the_user_go_first():
    fixed = Contract(spacing_mm=(1.5, 1.5, 1.5), patch_size=(96, 96, 96))
    assert grid(body(), fixed).spacing_mm == (1.5, 1.5, 1.5)
    chosen = grid(body(), fixed, spacing_mm=(2, 2, 4), patch_size=(64, 64, 32))
    assert (chosen.spacing_mm, chosen.patch_size) == ((2, 2, 4), (64, 64, 32))
    assert chosen.reason == "set by hand"
