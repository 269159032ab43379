"""Preprocessing: every case once, also after an interruption or an error."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fseft import api
from fseft.errors import FseftError
from fseft.planning import preprocessing
from fseft.planning.dataset_reading import read_dataset
from fseft.planning.preprocessing import cache_folder
from fseft.schemas import Intensity, Plan, Preprocessing
from fseft.volume import cache, case_files
from fseft.volume.geometry import Geometry
from fseft.volume.image import read_labels, write_labels, write_volume
from fseft.volume.laterality import LeftRightPair
from fseft.volume.preprocessing import GridTransform
from fseft.workspace import Workspace
from tests.sample_data import restored_labels

SHAPE = (20, 24, 28)
NAMES = ("a", "b", "c")


@pytest.fixture
def store(tmp_path):
    return Workspace(tmp_path / "workspace")


@pytest.fixture
def dataset(tmp_path):
    for kind in ("imagesTr", "labelsTr"):
        (tmp_path / "livers" / kind).mkdir(parents=True)
    for seed, name in enumerate(NAMES):
        write_case(tmp_path / "livers", name, seed=seed)
    return tmp_path / "livers"


def write_case(folder, name, *, seed=0, dtype=np.int16, spacing=(2.0, 1.0, 1.0)):
    geometry = Geometry(SHAPE, np.diag([*spacing, 1]))
    image = np.full((1, *SHAPE), -1000, dtype)
    image[0, 2:-2, 2:-2, 2:-2] = np.random.default_rng(seed).normal(60, 30, (16, 20, 24))
    label = np.zeros(SHAPE, np.uint8)
    label[4:10, 4:12, 4:12], label[12:16, 12:16, 12:16] = 1, 9
    write_volume(folder / "imagesTr" / f"{name}.nii.gz", image, geometry)
    write_labels(folder / "labelsTr" / f"{name}.nii.gz", label, geometry)


def preprocess(folder, *arguments, **options):
    return preprocessing.preprocess(read_dataset(folder), *arguments, **options)


def a_plan(**changed):
    chosen = Preprocessing(
        orientation="RAS",
        spacing_mm=(2, 1, 1),
        modality="ct",
        intensity=(Intensity(scheme="zscore"),),
        patch_size=(16, 16, 16),
    )
    return Plan(
        dataset="livers",
        model="none",
        fingerprint="",
        architecture="resunet",
        preprocessing=chosen.model_copy(update=changed),
        crops_per_step=6,
        memory_bytes=0,
        device="cpu",
        decisions=(),
    )


def test_every_case_is_cached_with_its_original_grid(dataset, store):
    result = preprocess(dataset, a_plan(), store)
    assert (result.processed, result.skipped) == (NAMES, ())
    case = result.open("a")
    image, label = case.read_all()
    assert image.dtype == np.int16
    assert image.shape == (1, 16, 20, 24)
    assert case.classes == (1, 9)
    assert case.meta["means"] == [pytest.approx(image.mean())]
    scores = np.stack([label == value for value in (0, 1, 9)]).astype(np.float32)
    restored = restored_labels(scores, GridTransform.from_json(case.meta), (0, 1, 9))
    np.testing.assert_array_equal(restored, read_labels(dataset / "labelsTr" / "a.nii.gz").array[0])


@pytest.mark.parametrize("air_mm", [0, 3])
def test_every_structure_is_located_where_no_background_is_left(dataset, store, air_mm):
    """Also when the only background is air, which is cropped."""
    image = np.full((1, *SHAPE), -1000, np.int16)
    label = np.zeros(SHAPE, np.uint8)
    inside = tuple(slice(air_mm, side - air_mm) for side in SHAPE)
    image[(0, *inside)] = 50
    label[inside] = 1
    label[8:12, 8:12, 8:12], image[0, 8:12, 8:12, 8:12] = 2, 90
    geometry = Geometry(SHAPE, np.diag([2.0, 1.0, 1.0, 1.0]))
    write_volume(dataset / "imagesTr" / "a.nii.gz", image, geometry)
    write_labels(dataset / "labelsTr" / "a.nii.gz", label, geometry)
    case = preprocess(dataset, a_plan(), store).open("a")
    assert (case.read_all()[1] > 0).all()
    assert case.classes == (1, 2)


def test_a_second_run_does_nothing(dataset, store):
    folder = preprocess(dataset, a_plan(), store).folder
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != ".lock"}
    again = preprocess(dataset, a_plan(), store)
    assert (again.processed, again.skipped) == ((), NAMES)
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize("kind", ["imagesTr", "labelsTr"])
def test_a_case_whose_file_changed_is_done_again(dataset, store, kind):
    preprocess(dataset, a_plan(), store)
    kept = {
        path: path.read_bytes() for path in dataset.rglob("b.nii.gz") if path.parent.name != kind
    }
    write_case(dataset, "b", seed=77)
    if kind == "labelsTr":
        label = read_labels(dataset / "labelsTr" / "b.nii.gz")
        label.array[0, 5, 5, 5] = 0
        write_labels(dataset / "labelsTr" / "b.nii.gz", label.array[0], label.geometry)
    for path, content in kept.items():
        path.write_bytes(content)
    again = preprocess(dataset, a_plan(), store)
    assert (again.processed, again.skipped) == (("b",), ("a", "c"))


@pytest.mark.parametrize("name", ["image.b2nd", "label.b2nd", "locations.npz", "case.json"])
def test_arrays_with_a_flipped_bit_are_made_again(dataset, store, name, caplog):
    result = preprocess(dataset, a_plan(), store)
    (path,) = result.folder.glob(f"b-*/{name}")
    intact = path.read_bytes()
    damaged = bytearray(intact)
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    again = preprocess(dataset, a_plan(), store)
    assert again.processed == ("b",)
    assert "the cache of case b is damaged and made again" in caplog.text
    assert path.read_bytes() == intact


def test_datasets_with_equal_names_have_separate_arrays(dataset, store, tmp_path):
    """Arrays that are opened later are those that were checked, whatever happens meanwhile."""
    first = preprocess(dataset, a_plan(), store)
    expected = {name: first.open(name).read_all()[0] for name in NAMES}
    opened = {name: first.open(name) for name in NAMES}
    (tmp_path / "other" / "livers" / "imagesTr").mkdir(parents=True)
    (tmp_path / "other" / "livers" / "labelsTr").mkdir()
    for seed, name in enumerate(NAMES, start=10):
        write_case(tmp_path / "other" / "livers", name, seed=seed)
    second = preprocess(tmp_path / "other" / "livers", a_plan(), store)
    assert second.processed == NAMES
    for name in NAMES:
        np.testing.assert_array_equal(opened[name].read_all()[0], expected[name])
        assert not np.array_equal(second.open(name).read_all()[0], expected[name])
    assert preprocess(dataset, a_plan(), store).skipped == NAMES


def test_a_file_that_changes_while_it_is_read_is_refused(dataset, store, monkeypatch):
    read = case_files.read_case

    def change_and_read(case, channels):
        if case.name == "b":
            write_case(dataset, "b", seed=5)
        return read(case, channels)

    monkeypatch.setattr(case_files, "read_case", change_and_read)
    with pytest.raises(FseftError, match=r"case b, .*a file has changed while it was read"):
        preprocess(dataset, a_plan(), store)
    monkeypatch.undo()
    assert preprocess(dataset, a_plan(), store).processed == ("b",)


def test_arrays_of_other_files_than_were_measured_are_refused(dataset, store):
    result = preprocess(dataset, a_plan(), store)
    result.check_contents(reversed(result.contents.values()))
    with pytest.raises(FseftError, match="the files of a case have changed"):
        result.check_contents(["other", *list(result.contents.values())[1:]])


def test_an_interrupted_preprocessing_resumes(dataset, store, monkeypatch):
    write, written = cache.write_case, []

    def dies_at_the_second(root, case, *arguments, **named):
        if written:
            raise KeyboardInterrupt
        written.append(case)
        write(root, case, *arguments, **named)

    monkeypatch.setattr(cache, "write_case", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        preprocess(dataset, a_plan(), store)
    monkeypatch.undo()
    result = preprocess(dataset, a_plan(), store)
    assert (result.processed, result.skipped) == (("b", "c"), ("a",))


def test_a_broken_case_leaves_the_others_done(dataset, store):
    (dataset / "imagesTr" / "a.nii.gz").write_bytes(b"no image")
    with pytest.raises(FseftError, match="case a"):
        preprocess(dataset, a_plan(), store)
    written = sorted(path.name[:2] for path in cache_folder(a_plan(), store).glob("*-*"))
    assert written == ["b-", "c-"]


def test_plans_that_differ_in_patch_or_intensity_share_the_arrays(store):
    same = a_plan(patch_size=(32, 32, 32), intensity=(Intensity(scheme="window", low=0, high=1),))
    assert cache_folder(same, store) == cache_folder(a_plan(), store)


@pytest.mark.parametrize(
    "change", [{"orientation": "LPS"}, {"spacing_mm": (1, 1, 1)}, {"modality": "mr"}]
)
def test_plans_that_differ_in_the_grid_do_not(store, change):
    assert cache_folder(a_plan(**change), store) != cache_folder(a_plan(), store)


def test_only_the_chosen_cases_are_done(dataset, store):
    assert preprocess(dataset, a_plan(), store, cases=["c"]).processed == ("c",)
    with pytest.raises(FseftError, match="unknown case 'd'"):
        preprocess(dataset, a_plan(), store, cases=["d"])


def test_unlabelled_cases_are_cached_without_label(dataset, store):
    (dataset / "labelsTr" / "a.nii.gz").unlink()
    result = preprocess(dataset, a_plan(), store)
    assert [result.open(name).labelled for name in NAMES] == [False, True, True]


def test_fractions_are_cached_as_float32(dataset, store):
    write_case(dataset, "a", dtype=np.float32)
    result = preprocess(dataset, a_plan(), store)
    assert result.open("a").read_all()[0].dtype == np.float32


def test_the_plan_of_another_dataset_is_refused(dataset, store):
    with pytest.raises(FseftError, match="the plan is for the dataset 'hearts', not for 'livers'"):
        preprocess(dataset, a_plan().model_copy(update={"dataset": "hearts"}), store)


@pytest.mark.full
def test_processes_give_the_same_arrays(dataset, store, tmp_path):
    here = preprocess(dataset, a_plan(spacing_mm=(1.5, 1.5, 1.5)), store)
    there = preprocess(
        dataset, a_plan(spacing_mm=(1.5, 1.5, 1.5)), Workspace(tmp_path / "other"), workers=2
    )
    for name in NAMES:
        for a, b in zip(*(arrays.open(name).read_all() for arrays in (here, there)), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.real
def test_public_cases_come_back_to_their_grid(real_data, store):
    folder = real_data / "headneck"
    _, plan = api.plan(folder, "none", device="cpu", workspace=store)
    result = preprocess(folder, plan, store, cases=["pt_100", "pt_101"])
    assert len(result.processed) == 2
    case = result.open("pt_100")
    _, label = case.read_all()
    ids = (0, *case.classes)
    scores = np.stack([label == value for value in ids]).astype(np.float32)
    restored = restored_labels(scores, GridTransform.from_json(case.meta), ids)
    original = read_labels(folder / "labelsTr" / "pt_100.nii.gz").array[0]
    both = ((restored > 0) & (original > 0)).sum()
    assert 2 * both / ((restored > 0).sum() + (original > 0).sum()) > 0.95


@pytest.mark.real
def test_a_dicom_series_is_a_case(real_data, store, tmp_path):
    folder = tmp_path / "series"
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir(parents=True)
    (folder / "imagesTr" / "straight").symlink_to(real_data / "dicom_ct" / "straight")
    label = real_data / "dicom_ct" / "straight_labels.nii.gz"
    (folder / "labelsTr" / "straight.nii.gz").symlink_to(label)
    fingerprint, plan = api.plan(folder, "none", device="cpu", workspace=store)
    assert fingerprint.modality == "ct"
    assert fingerprint.cases[0].spacing_mm[0] == pytest.approx(2)
    assert preprocess(folder, plan, store).processed == ("straight",)


def test_a_4d_image_has_its_channels(store, tmp_path):
    folder = tmp_path / "livers"
    declared = {
        "modality": {"0": "T1", "1": "T2"},
        "labels": {"0": "background", "1": "liver"},
        "training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}],
    }
    image = np.random.default_rng(0).normal(100, 9, (2, *SHAPE)).astype(np.int16)
    geometry = Geometry(SHAPE, np.eye(4))
    write_volume(folder / "imagesTr" / "a.nii.gz", image, geometry)
    write_labels(folder / "labelsTr" / "a.nii.gz", np.ones(SHAPE, np.uint8), geometry)
    (folder / "dataset.json").write_text(json.dumps(declared))
    result = preprocess(folder, a_plan(spacing_mm=(1, 1, 1), modality="mr"), store)
    assert result.open("a").channels == 2


# --- left and right -------------------------------------------------------------------------------


@pytest.fixture
def paired(tmp_path):
    """A round body with a structure of value 1 on its left and, in case `b`, also on its right."""
    shape, geometry = (40, 30, 12), Geometry((40, 30, 12), np.diag([-6.0, -6.0, 6.0, 1.0]))
    i, j, _ = np.indices(shape)
    image = np.where(((i - 20) / 16) ** 2 + ((j - 15) / 11) ** 2 < 1, 40, -1000).astype(np.int16)
    for kind in ("imagesTr", "labelsTr"):
        (tmp_path / "pairs" / kind).mkdir(parents=True)
    for case, places in (("a", (10,)), ("b", (10, 28))):
        label = np.zeros(shape, np.uint8)
        for place in places:
            label[place : place + 4, 12:18, 4:8] = 1
        write_volume(
            tmp_path / "pairs" / "imagesTr" / f"{case}_0000.nii.gz", (image + label)[None], geometry
        )
        write_labels(tmp_path / "pairs" / "labelsTr" / f"{case}.nii.gz", label, geometry)
    declared = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "kidney": 1},
        "file_ending": ".nii.gz",
    }
    (tmp_path / "pairs" / "dataset.json").write_text(json.dumps(declared))
    return tmp_path / "pairs"


def test_pairs_are_divided_once_and_uncertain_cases_are_logged_each_time(paired, tmp_path, caplog):
    store = Workspace(tmp_path / "workspace")
    _, plan = api.plan(paired, "none", device="cpu", workspace=store)
    pairs = {1: LeftRightPair(2, 3)}
    for done in (("a", "b"), ()):
        caplog.clear()
        result = preprocess(paired, plan, store, pairs=pairs)
        assert result.processed == done
        (message,) = caplog.messages
        doubt = "a: left and right of 'kidney' are uncertain: no component is on the right"
        assert doubt in message
    left_only, both = (result.open(name) for name in ("a", "b"))
    assert (left_only.classes, both.classes) == ((2,), (2, 3))
    assert both.locations(2)[:, 0].max() < both.locations(3)[:, 0].min()  # the axes are RAS


def test_divided_and_undivided_arrays_lie_apart(paired, tmp_path):
    store = Workspace(tmp_path / "workspace")
    _, plan = api.plan(paired, "none", device="cpu", workspace=store)
    whole = preprocess(paired, plan, store)
    assert whole.open("b").classes == (1,)
    assert cache_folder(plan, store, {}) == whole.folder
    assert cache_folder(plan, store, {1: LeftRightPair(2, 3)}) != whole.folder
    assert cache_folder(plan, store, {1: LeftRightPair(2, 3)}) != cache_folder(
        plan, store, {1: LeftRightPair(3, 2)}
    )
