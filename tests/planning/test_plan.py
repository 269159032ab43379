"""The plan: decisions with reasons, within the resources, and nothing measured twice."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from fseft.errors import FseftError, PluginError
from fseft.experiment.callbacks import Callbacks
from fseft.learn.training.memory_estimate import training_bytes
from fseft.model_zoo.catalogue import find_model
from fseft.planning.dataset_reading import read_dataset
from fseft.planning.fingerprinting import TrainingLabels
from fseft.planning.grid import is_short
from fseft.planning.label_round_trip import LabelSample
from fseft.planning.options import plan_options
from fseft.planning.plan import make_plan, measure, plan_adaptation, stored_plan
from fseft.planning.spacing import Grid
from fseft.planning.training_step import (
    FASTEST_PUBLIC_MODEL,
    FLOPS_PER_SECOND,
    for_minutes,
    steps_in_time,
    warn_of_few_steps,
)
from fseft.schemas import Contract, Intensity, ModelCard, Plan, PlanOptions
from fseft.volume.geometry import Geometry
from fseft.volume.image import read_labels, write_labels, write_volume
from fseft.workspace import Workspace, atomic_write, read_document, write_document

SHAPE = (60, 70, 80)
DECISIONS = [
    "modality",
    "orientation",
    "spacing",
    "intensity",
    "patch size",
    "training length",
    "crops per step",
    "memory",
    "architecture",
    "device",
]


@pytest.fixture
def store(tmp_path):
    return Workspace(tmp_path / "workspace")


@pytest.fixture
def dataset(tmp_path):
    """Three CT cases with a liver and a spleen."""
    folder = tmp_path / "livers"
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "labelsTr").mkdir()
    declared = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "liver": 1, "spleen": 4},
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(declared))
    for number in range(3):
        write_case(folder, f"case_{number}", seed=number)
    return folder


def write_case(folder, name, *, seed=0):
    geometry = Geometry(SHAPE, np.diag([2.0, 1.5, 1.5, 1]))
    image = np.full((1, *SHAPE), -1000, np.int16)
    image[0, 2:-2, 2:-2, 2:-2] = np.random.default_rng(seed).normal(60, 30, (56, 66, 76))
    label = np.zeros(SHAPE, np.uint8)
    label[10:30, 10:40, 10:50], label[40:50, 40:50, 40:50] = 1, 4
    write_volume(folder / "imagesTr" / f"{name}_0000.nii.gz", image, geometry)
    write_labels(folder / "labelsTr" / f"{name}.nii.gz", label, geometry)


class Cases(Callbacks):
    """Record the names of the cases that were measured."""

    def __init__(self, names):
        self.names = names

    @contextmanager
    def progress(self, description, total):
        del description, total
        yield self.names.append


def plan_of(folder, model, store, measured=None, **options):
    callbacks = None if measured is None else Cases(measured)
    dataset = read_dataset(folder)
    choices = plan_options(**options)
    return make_plan(dataset, find_model(model, store), store, choices, callbacks=callbacks)


def a_model(store, **contract):
    card = ModelCard(name="found", architecture="resunet", contract=Contract(**contract))
    write_document(store.model("found") / "model.json", card)


def decisions(plan):
    return {decision.name: decision for decision in plan.decisions}


def test_every_decision_has_a_value_and_a_reason(dataset, store):
    _, plan = plan_of(dataset, "none", store, device="cpu")
    assert list(decisions(plan)) == DECISIONS
    assert all(decision.value and decision.reason for decision in plan.decisions)


def test_without_a_model_the_fingerprint_decides(dataset, store):
    fingerprint, plan = plan_of(dataset, "none", store, device="cpu")
    chosen, (stats,) = plan.preprocessing, fingerprint.intensities
    assert (chosen.modality, chosen.orientation) == ("ct", "RAS")
    assert chosen.spacing_mm == (2, 1.5, 1.5)
    assert chosen.intensity[0].scheme == "clip-zscore"
    assert chosen.intensity[0].high == stats.percentile_99_5
    assert np.prod(chosen.patch_size) <= 64**3


def test_the_models_contract_goes_first(dataset, store):
    window = Intensity(scheme="window", low=-175, high=250)
    a_model(
        store,
        orientation="LPS",
        spacing_mm=(1.5, 1.5, 2),
        intensity={"ct": window},
        patch_size=(48, 48, 32),
    )
    _, plan = plan_of(dataset, "found", store, device="cpu")
    chosen = plan.preprocessing
    assert (chosen.orientation, chosen.spacing_mm, chosen.patch_size) == (
        "LPS",
        (1.5, 1.5, 2),
        (48, 48, 32),
    )
    assert chosen.intensity == (window,)


def test_a_plan_warns_of_a_poor_fit(dataset, store):
    a_model(
        store,
        spacing_mm=(20, 20, 20),
        intensity={"ct": Intensity(scheme="window", low=100, high=250)},
    )
    _, plan = plan_of(dataset, "found", store, device="cpu")
    text = "\n".join(plan.warnings)
    assert "clips" in decisions(plan)["intensity"].reason
    assert "spleen is 20×15×15 mm" in text


def test_documents_come_back_from_the_store(dataset, store):
    fingerprint, plan = plan_of(dataset, "none", store, device="cpu")
    assert read_document(store.plan("livers", "none"), Plan) == plan
    assert read_document(store.fingerprint("livers"), type(fingerprint)) == fingerprint
    assert plan.fingerprint == fingerprint.content


def test_a_dataset_is_measured_again_only_where_it_changed(dataset, store):
    measured = []
    first, _ = plan_of(dataset, "none", store, device="cpu", measured=measured)
    again, _ = plan_of(dataset, "none", store, device="cpu", measured=measured)
    assert sorted(measured) == ["case_0", "case_1", "case_2"]
    assert again == first
    write_case(dataset, "case_1", seed=99)
    changed, plan = plan_of(dataset, "none", store, device="cpu", measured=measured)
    assert len(measured) == 6
    assert changed.intensities != first.intensities
    assert plan.fingerprint == changed.content != first.content


def test_a_case_that_was_measured_is_not_measured_again_for_the_sake_of_others(
    dataset, store, monkeypatch
):
    from fseft.volume import fingerprint

    measured, measure = [], fingerprint.measure_case
    monkeypatch.setattr(
        fingerprint,
        "measure_case",
        lambda case, **how: measured.append(case.name) or measure(case, **how),
    )
    path = dataset / "imagesTr" / "case_1_0000.nii.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    with pytest.raises(FseftError, match="case_1"):
        plan_of(dataset, "none", store, device="cpu")
    path.write_bytes(whole)
    mended, _ = plan_of(dataset, "none", store, device="cpu")
    assert sorted(measured) == ["case_0", "case_1", "case_1", "case_2"]
    fresh, _ = plan_of(dataset, "none", Workspace(store.root / "other"), device="cpu")
    assert mended == fresh


def test_measurements_stay_in_a_workspace_that_is_a_relative_path(dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for root in (Path(), Path("place")):
        plan_of(dataset, "none", Workspace(root), device="cpu")
        folder = root / "fingerprints" / dataset.name / "cases"
        assert len([path for path in folder.iterdir() if path.suffix == ".npz"]) == 3


def test_a_damaged_measurement_is_made_again(dataset, store):
    first, _ = plan_of(dataset, "none", store, device="cpu")
    folder = store.fingerprint("livers").parent
    store.fingerprint("livers").unlink()
    kept = sorted((folder / "cases").iterdir())
    assert len(kept) == 3
    for path, content in zip(kept, (b"", kept[1].read_bytes()[:200], b"odd"), strict=True):
        path.write_bytes(content)
    assert plan_of(dataset, "none", store, device="cpu")[0] == first


def test_files_that_another_process_is_writing_stay(dataset, store):
    cases = store.fingerprint("livers").parent / "cases"
    with atomic_write(cases / "other.npz") as temporary:
        temporary.touch()
        plan_of(dataset, "none", store, device="cpu")
        assert temporary.exists()


def test_less_memory_gives_fewer_crops_then_a_smaller_patch(dataset, store):
    _, free = plan_of(dataset, "none", store, device="cpu")

    def needed(patch, crops):
        return training_bytes(
            "resunet", free.hparams, in_channels=1, out_channels=3, patch_size=patch, crops=crops
        )

    patch = free.preprocessing.patch_size
    _, less = plan_of(dataset, "none", store, device="cpu", memory_bytes=needed(patch, 2))
    assert (less.preprocessing.patch_size, less.crops_per_step) == (patch, 2)
    limit = needed(patch, 1) - 1
    _, least = plan_of(dataset, "none", store, device="cpu", memory_bytes=limit)
    assert np.prod(least.preprocessing.patch_size) < np.prod(patch)
    assert least.memory_bytes <= limit
    assert "would not fit" in decisions(least)["patch size"].reason


def test_memory_for_nothing_is_refused(dataset, store):
    with pytest.raises(
        FseftError, match=r"smallest training step of resunet needs .* MB.*limit is 10 MB"
    ):
        plan_of(dataset, "none", store, device="cpu", memory_bytes=10_000_000)


def test_other_channels_than_the_models_are_refused(dataset, store):
    a_model(store, channels=2)
    with pytest.raises(FseftError, match=r"found takes 2 channels, livers has 1 \(CT\)"):
        plan_of(dataset, "found", store)


def test_a_broken_case_is_named_and_all_are_looked_at(dataset, store):
    for name in ("case_0", "case_2"):
        (dataset / "labelsTr" / f"{name}.nii.gz").write_bytes(b"")
    looked = []
    with pytest.raises(FseftError, match=r"case case_[02].*empty.*1 more case"):
        plan_of(dataset, "none", store, measured=looked)
    assert len(looked) == 3


@pytest.mark.skipif("CUDA_VISIBLE_DEVICES" in os.environ, reason="there may be a device")
def test_an_absent_device_is_refused(dataset, store):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(FseftError, match="CUDA"):
        plan_of(dataset, "none", store, device="cuda")


@pytest.mark.real
def test_a_public_ct_dataset_is_planned(real_data, store):
    fingerprint, plan = plan_of(real_data / "headneck", "none", store, device="cpu")
    assert (fingerprint.modality, len(fingerprint.cases), plan.preprocessing.orientation) == (
        "ct",
        100,
        "RAS",
    )
    assert fingerprint.classes["brainstem"].cases == 92
    assert plan.preprocessing.spacing_mm == pytest.approx((3.906, 3.906, 2.5), abs=1e-3)
    assert any("spinal_cord" in warning for warning in plan.warnings)


@pytest.mark.real
def test_a_dataset_that_names_nothing_is_planned(real_data, store):
    fingerprint, plan = plan_of(real_data / "hippocampus", "none", store, device="cpu")
    assert fingerprint.labels == {"class_1": 1, "class_2": 2}
    assert plan.preprocessing.intensity[0].scheme == "zscore"
    assert any("hippocampus_010" in warning for warning in plan.warnings)


# --- time, values set by hand, alternative plans --------------------------------------------------


def test_a_short_time_budget_means_few_crops(dataset, store):
    _, short = plan_of(dataset, "none", store, device="cpu", minutes=0.2)
    _, long = plan_of(dataset, "none", store, device="cpu", minutes=1000)
    assert (short.crops_per_step, long.crops_per_step) == (2, 6)
    assert "where the time is short" in decisions(short)["crops per step"].reason


@pytest.mark.parametrize("minutes", [1, 4])
def test_a_step_of_the_embedded_model_has_two_crops_in_a_budget_of_minutes(minutes, store, dataset):
    _, plan = plan_of(dataset, "phantom-tiny", store, device="cpu", minutes=minutes)
    assert plan.crops_per_step == 2


def test_the_default_length_on_a_cpu_is_a_number_of_steps_with_a_reason(dataset, store):
    _, plan = plan_of(dataset, "none", store, device="cpu")
    assert 2 <= plan.minutes <= 30
    length = decisions(plan)["training length"]
    assert length.value == f"{steps_in_time(plan, 2)} steps"
    assert length.reason.startswith("default on a CPU")
    assert plan.crops_per_step == 2


def test_the_default_time_budget_does_not_depend_on_the_threads(dataset, store, monkeypatch):
    def steps(threads):
        monkeypatch.setattr("torch.get_num_threads", lambda: threads)
        _, plan = plan_of(dataset, "none", store, device="cpu")
        return plan.minutes, steps_in_time(plan, plan.crops_per_step)

    assert steps(1) == steps(64)


def test_other_minutes_reduce_the_crops_that_nobody_has_set(dataset, store):
    _, plan = plan_of(dataset, "none", store, device="cpu", minutes=1000)
    assert for_minutes(plan, None) == plan
    assert for_minutes(plan, 0.2).crops_per_step == 2
    _, by_hand = plan_of(dataset, "none", store, device="cpu", crops_per_step=6)
    assert for_minutes(by_hand, 0.2).crops_per_step == 6


def test_values_set_by_hand_go_first(dataset, store):
    by_hand = {"spacing_mm": (3, 2, 2), "patch_size": (32, 48, 32), "crops_per_step": 1}
    _, plan = plan_of(dataset, "none", store, device="cpu", **by_hand)
    chosen = plan.preprocessing
    assert (chosen.spacing_mm, chosen.patch_size, plan.crops_per_step) == tuple(by_hand.values())
    names = ("spacing", "patch size", "crops per step")
    assert [decisions(plan)[name].reason for name in names] == ["set by hand"] * 3


@pytest.mark.parametrize(
    ("by_hand", "step"),
    [
        ({"patch_size": (64, 64, 64)}, "1 crop of 64×64×64 voxels"),
        ({"crops_per_step": 20}, "20 crops of 32×32×32 voxels"),
        ({"patch_size": (64, 64, 64), "crops_per_step": 3}, "3 crops of 64×64×64 voxels"),
    ],
)
def test_values_set_by_hand_do_not_shrink_for_the_memory(dataset, store, by_hand, step):
    limit = training_bytes(
        "resunet", {}, in_channels=1, out_channels=3, patch_size=(32, 32, 32), crops=2
    )
    with pytest.raises(FseftError, match=step):
        plan_of(dataset, "none", store, device="cpu", memory_bytes=limit, **by_hand)


@pytest.mark.parametrize(
    "wrong", [{"spacing_mm": (1, 1, 0)}, {"patch_size": (50, 48, 48)}, {"patch_size": (16, 48, 48)}]
)
def test_a_grid_that_no_network_accepts_is_refused(dataset, store, wrong):
    with pytest.raises(
        FseftError, match=r"must be greater than 0|multiples of 16×16×16, from 32×32×32"
    ):
        plan_of(dataset, "none", store, device="cpu", **wrong)


def test_an_alternative_plan_has_its_own_file(dataset, store):
    read, model = read_dataset(dataset), find_model("none", store)
    fingerprint, usual = make_plan(read, model, store)
    _, fine = make_plan(read, model, store, PlanOptions(spacing_mm=(1, 1, 1)), name="fine")
    assert stored_plan(read, model, store, fingerprint) == usual
    assert stored_plan(read, model, store, fingerprint, "fine") == fine
    with pytest.raises(FseftError, match="the plan 'coarse' does not exist"):
        stored_plan(read, model, store, fingerprint, "coarse")


def test_labels_outside_the_training_decide_nothing(dataset, store):
    def planned(shape):
        label = np.zeros(SHAPE, np.uint8)
        label[tuple(slice(0, side) for side in shape)] = 1
        write_labels(
            dataset / "labelsTr" / "case_2.nii.gz",
            label,
            Geometry(SHAPE, np.diag([2.0, 1.5, 1.5, 1])),
        )
        read, model = read_dataset(dataset), find_model("none", store)
        fingerprint = measure(read, model, store)
        labels = TrainingLabels(frozenset({"case_0"}), frozenset({"liver"}))
        options = PlanOptions(device="cpu")
        return plan_adaptation(read, model, store, fingerprint, labels, options).preprocessing

    assert planned((2, 2, 2)) == planned((60, 70, 80))


def test_the_labels_of_a_coarse_grid_come_back_with_a_loss(dataset, store):
    read = read_dataset(dataset)
    fingerprint = measure(read, find_model("none", store), store)
    round_trip = LabelSample.of(read, fingerprint, "RAS").round_trip
    assert set(round_trip((2, 1.5, 1.5)).values()) == {1}
    coarse = round_trip((11, 11, 11))
    assert 0 < coarse["spleen"] < coarse["liver"] < 1


def test_single_slices_come_back_from_a_coarse_grid(dataset, store):
    for path in (dataset / "labelsTr").iterdir():
        volume = read_labels(path)
        label = volume.array[0].copy()
        label[label == 0] = 9
        label[~(np.arange(len(label)) % 4 == 2)] = 9
        write_labels(path, label, volume.geometry)
    read = read_dataset(dataset, ignore_label=9)
    fingerprint = measure(read, find_model("none", store), store)
    round_trip = LabelSample.of(read, fingerprint, "RAS").round_trip
    coarse = round_trip((8, 8, 8))
    assert set(coarse) == {"liver", "spleen"}
    assert min(coarse.values()) > 0.5


def test_regions_come_back_from_a_coarse_grid_as_a_whole(dataset, store):
    for path in (dataset / "labelsTr").iterdir():
        volume = read_labels(path)
        label = (volume.array[0] > 0).astype(np.uint8)
        label[1::2] *= 2  # in thin layers, which a coarse grid mixes
        write_labels(path, label, volume.geometry)
    declared = json.loads((dataset / "dataset.json").read_text())
    declared["labels"] = {"background": 0, "both": [1, 2], "layers": [2]}
    declared["regions_class_order"] = [1, 2]
    (dataset / "dataset.json").write_text(json.dumps(declared))
    read = read_dataset(dataset)
    sample = LabelSample.of(read, measure(read, find_model("none", store), store), "RAS")
    assert set(sample.round_trip((2, 1.5, 1.5)).values()) == {1}
    as_regions = sample.round_trip((11, 11, 11))
    for path in (dataset / "labelsTr").iterdir():
        volume = read_labels(path)
        write_labels(path, (volume.array[0] > 0).astype(np.uint8), volume.geometry)
    del declared["regions_class_order"]
    declared["labels"] = {"background": 0, "both": 1}
    (dataset / "dataset.json").write_text(json.dumps(declared))
    read = read_dataset(dataset)
    union = LabelSample.of(read, measure(read, find_model("none", store), store), "RAS")
    assert as_regions["layers"] < 0.7
    assert as_regions["both"] == pytest.approx(union.round_trip((11, 11, 11))["both"], abs=0.05)


def test_the_box_around_the_structures_is_measured_along_the_axes_of_the_model(dataset, store):
    read = read_dataset(dataset)
    fingerprint = measure(read, find_model("none", store), store)
    along = {axes: LabelSample.of(read, fingerprint, axes).foreground_mm for axes in ("RAS", "SRA")}
    x, y, z = along["RAS"]
    assert along["SRA"] == (z, x, y)
    for name, structure in fingerprint.classes.items():
        assert all(
            side <= whole + 1e-6
            for side, whole in zip(structure.maximum_extent_mm, (x, y, z), strict=True)
        ), name


def test_only_a_short_training_on_a_cpu_is_planned_for_few_steps():
    assert not is_short(PlanOptions(), "cpu")
    assert is_short(PlanOptions(minutes=4), "cpu")
    assert not is_short(PlanOptions(minutes=60), "cpu")
    assert not is_short(PlanOptions(minutes=4), "cuda")


def test_another_planner_is_chosen_by_name(dataset, store):
    _, plan = plan_of(dataset, "none", store, device="cpu", planner="native")
    assert plan.preprocessing.spacing_mm == (2, 1.5, 1.5)
    with pytest.raises(FseftError, match="unknown planner 'best'"):
        plan_of(dataset, "none", store, device="cpu", planner="best")


def test_a_stored_plan_stays_when_the_ranges_of_the_training_become_known(dataset, store):
    def planned(*, reuse):
        read, model = read_dataset(dataset), find_model("found", store)
        return make_plan(read, model, store, reuse=reuse)[1]

    a_model(store)
    before = planned(reuse=False)
    a_model(store, spacing_range_mm=(4.0, 5.0), structure_range_voxels=(5.0, 28.0))
    assert planned(reuse=True) == before


@pytest.mark.parametrize(
    ("result", "options", "fault"),
    [
        ({"spacing_mm": (1, 1, 1)}, {}, "returned a dict, not a Grid"),
        (Grid((1, 1, 1), (64, 64, 64), ""), {"spacing_mm": (2, 2, 2)}, "spacing of 2×2×2 mm"),
        (Grid((1, 1, 1), (64, 64, 64), ""), {"patch_size": (32, 32, 32)}, "patch of 32×32×32"),
    ],
)
def test_a_planner_that_breaks_its_contract_is_refused(
    dataset, store, monkeypatch, result, options, fault
):
    monkeypatch.setattr("fseft.planning.spacing.native_grid", lambda _: result)
    with pytest.raises(PluginError, match=f"the planner 'native' .*{fault}"):
        plan_of(dataset, "none", store, device="cpu", planner="native", **options)


def test_the_warnings_of_an_adaptation_are_about_its_structures_and_cases(dataset, store):
    a_model(store, spacing_mm=(20, 20, 20))
    fingerprint, general = plan_of(dataset, "found", store, device="cpu")
    assert any(warning.startswith("spleen") for warning in general.warnings)
    cases = frozenset(case.name for case in fingerprint.cases)
    model, data = find_model("found", store), read_dataset(dataset)
    options = {"stored": plan_options(), "made": plan_options(device="cpu")}
    for planned in options.values():
        plan = plan_adaptation(
            data, model, store, fingerprint, TrainingLabels(cases, frozenset({"liver"})), planned
        )
        assert not [warning for warning in plan.warnings if "spleen" in warning]


def test_too_short_a_time_is_named_with_the_one_that_is_needed(dataset, store):
    _, plan = plan_of(dataset, "none", store, device="cpu")
    (short,) = warn_of_few_steps(plan, 0.1, 2)
    assert "0.1 minutes allow about" in short
    assert "500 take about" in short
    assert warn_of_few_steps(plan, 30, 2) == warn_of_few_steps(plan, None, 2) == []


def test_a_model_that_needs_a_gpu_is_named(dataset, store, monkeypatch):
    _, plan = plan_of(dataset, "none", store, device="cpu")
    monkeypatch.setitem(FLOPS_PER_SECOND, "cpu", 1e7)
    (slow,) = warn_of_few_steps(plan, 30, 2)
    assert slow.startswith("training none needs a GPU: 30 minutes allow about 1 training step,")
    assert FASTEST_PUBLIC_MODEL in slow
