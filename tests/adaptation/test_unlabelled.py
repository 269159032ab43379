"""Scans without labels, which a mean teacher labels for the training."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fseft import api
from fseft.adaptation import mean_teacher
from fseft.adaptation.configure import configure
from fseft.adaptation.crop_training import Batch
from fseft.adaptation.mean_teacher import (
    CONFIDENCE,
    MeanTeacher,
    UnlabelledCrops,
    confident_labels,
)
from fseft.adaptation.method_selection import _applicable, candidate_methods
from fseft.adaptation.request import TEACHER_DECAY
from fseft.api._adaptation import _unlabelled
from fseft.errors import FseftError
from fseft.experiment.callbacks import Callbacks
from fseft.model_zoo.catalogue import find_model
from fseft.planning.dataset_reading import read_dataset
from fseft.planning.training_step import steps_in_time, unlabelled_crops
from fseft.plugin import MethodSpec
from fseft.registry import registry
from fseft.schemas import Run
from fseft.volume.geometry import Geometry
from fseft.volume.image import write_volume
from fseft.volume.label_values import IGNORED
from fseft.workspace import read_document
from tests.sample_data import SHAPE, a_scan, adapt_request, equal_tensors, write_dataset

ON_CROPS = [
    spec.name
    for spec in registry().specs("method", MethodSpec)
    if spec.trains and spec.needs_model and spec.access == "white-box"
    if spec.name not in ("adaptformer", "compacter")
]
"""Without those that need transformer blocks."""
GEOMETRY = Geometry(SHAPE, np.diag([1.5, 1.5, 1.5, 1]))


@pytest.fixture
def scans(tmp_path):
    """Two scans without labels, in another format and naming than the dataset."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for number in range(2):
        write_volume(folder / f"scan{number}.nrrd", a_scan(20 + number)[0], GEOMETRY)
    return folder


@pytest.fixture
def adapt(blobs, workspace):
    """Adapts `tiny` in few steps, in which the teacher's labels count from the second one on."""

    def run(method="lora", k=2, *, data=blobs, **options):
        quick = {"epochs": 4, "crops_per_step": 2, "device": "cpu", **options}
        return api.adapt(data, "tiny", method, k, workspace=workspace, **quick)

    return run


def found(scans, dataset):
    """The scans as a request holds them."""
    return _unlabelled(scans, read_dataset(dataset))


@pytest.fixture
def unsure_teacher(monkeypatch):
    """A teacher whose labels count although its network is hardly trained."""
    monkeypatch.setattr(mean_teacher, "CONFIDENCE", 0.4)
    monkeypatch.setattr(mean_teacher, "START", 0.1)


def a_teacher(progress=1.0, cases=1):
    """A teacher without scans, at some progress of its training."""
    support = SimpleNamespace(cases=range(cases))
    config = SimpleNamespace(request=SimpleNamespace(origin=None), support=support)
    parts = {"scans": (), "source": None, "augmentations": None}
    return MeanTeacher(config, SimpleNamespace(progress=progress), **parts)


# --- labels of the teacher ------------------------------------------------------------------------


def test_the_most_probable_label_counts_where_the_teacher_is_confident():
    sure, unsure = CONFIDENCE + 0.01, CONFIDENCE - 0.01
    probabilities = torch.tensor([[1 - sure, sure], [sure, 1 - sure], [1 - unsure, unsure]])
    labels = confident_labels(probabilities.log().T[None])
    assert labels.tolist() == [[1, 0, IGNORED]]


def test_the_label_of_overlapping_structures_is_a_combination_that_exists():
    """Structure 2 is a part of structure 1: label 1 is structure 1 alone, label 2 both."""
    members = torch.tensor([[0.0, 0], [1, 0], [1, 1]])
    odds = torch.tensor([[-9.0, -9], [9, -9], [9, 9], [9, 0]])
    logits = torch.cat([torch.zeros(4, 1), odds], 1).T[None]
    assert confident_labels(logits, members).tolist() == [[0, 1, 2, IGNORED]]


@pytest.mark.parametrize(("crops", "more"), [(1, 1), (2, 1), (3, 1), (6, 3)])
def test_there_are_at_least_as_many_labelled_crops(crops, more):
    assert unlabelled_crops(crops) == more


@pytest.mark.parametrize(
    ("progress", "cases", "weight"), [(0.1, 1, 0), (0.6, 1, 1), (1, 2, 1), (1, 5, 0.4)]
)
def test_labels_of_the_teacher_count_later_and_less_with_more_cases(progress, cases, weight):
    assert a_teacher(progress, cases).weight == pytest.approx(weight)


def test_the_teacher_counts_for_structures_that_a_labelled_crop_annotates(monkeypatch):
    monkeypatch.setattr(MeanTeacher, "labels", lambda _, images: images[:, 0].long())
    images = torch.zeros(2, 1, 4, 4, 4)
    labelled = Batch(images, images[:, 0].long(), annotated=torch.tensor([[1, 0, 0], [0, 1, 0]]))
    crops = UnlabelledCrops(images[:1].numpy(), images[:1].numpy())
    assert a_teacher().extended(labelled, crops).annotated[2].tolist() == [1, 1, 0]


# --- training -------------------------------------------------------------------------------------


def test_the_scans_change_the_result(adapt, scans, unsure_teacher):
    options = {"ema_decay": TEACHER_DECAY}
    plain, taught = adapt(**options), adapt(unlabelled=scans, **options)
    assert not equal_tensors(load_file(plain.path), load_file(taught.path))


def test_without_a_weight_of_its_labels_the_training_is_that_of_the_labelled_cases(
    adapt, scans, monkeypatch
):
    monkeypatch.setattr(mean_teacher, "START", 1.0)
    monkeypatch.setattr(mean_teacher, "FULL", 2.0)
    plain, taught = adapt(ema_decay=TEACHER_DECAY), adapt(unlabelled=scans)
    assert equal_tensors(load_file(plain.path), load_file(taught.path))


def test_the_result_is_the_moving_average_of_the_weights(adapt, scans, workspace, tmp_path):
    taught = adapt(unlabelled=scans, output=tmp_path / "run")
    assert taught.run.recipe["ema_decay"] == TEACHER_DECAY
    saved = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    tensors = load_file(taught.path)
    average = {tuple(tensor.flatten().tolist()) for tensor in saved["average"]}
    assert average <= {tuple(tensor.flatten().tolist()) for tensor in tensors.values()}


class Interrupt(Callbacks):
    """Interrupts the training after its third epoch, with a checkpoint of the second."""

    def on_epoch_end(self, epoch):
        if epoch.number == 3:
            raise KeyboardInterrupt


def test_an_interrupted_run_resumes_to_the_same_adapter(adapt, scans, unsure_teacher, tmp_path):
    options = {"unlabelled": scans, "checkpoint_seconds": 0}
    output = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        adapt(**options, output=output, callbacks=Interrupt())
    assert read_document(output / "run.json", Run).outcome == "interrupted"
    resumed, whole = adapt(**options, output=output), adapt(**options)
    assert equal_tensors(load_file(resumed.path), load_file(whole.path))


def test_a_start_from_an_adapter_has_a_teacher_from_the_first_step(adapt, scans, monkeypatch):
    monkeypatch.setattr(mean_teacher, "CONFIDENCE", 0.4)
    monkeypatch.setattr(mean_teacher, "START", 1.0)
    first = adapt()
    plain = adapt(from_adapter=first, ema_decay=TEACHER_DECAY)
    taught = adapt(from_adapter=first, unlabelled=scans)
    assert not equal_tensors(load_file(plain.path), load_file(taught.path))


@pytest.mark.full
@pytest.mark.parametrize("method", ON_CROPS)
def test_every_method_that_trains_on_crops_learns_from_scans(
    method, adapt, scans, unsure_teacher, blobs, tmp_path
):
    adapter = adapt(method, unlabelled=scans, output=tmp_path / "run")
    api.predict(blobs / "imagesTr" / "a_0000.nii.gz", adapter, tmp_path / "out", device="cpu")
    assert (tmp_path / "out" / "a.nii.gz").is_file()


def test_structures_may_overlap(adapt, scans, unsure_teacher, tmp_path):
    folder = write_dataset(tmp_path / "nested")
    declared = json.loads((folder / "dataset.json").read_text())
    declared["labels"] = {"background": 0, "kidney": [1, 7], "tumour": [7]}
    declared["regions_class_order"] = [1, 7]
    (folder / "dataset.json").write_text(json.dumps(declared))
    assert adapt(data=folder, unlabelled=scans).run.outcome == "finished"


def test_training_cases_may_annotate_different_structures(adapt, scans, unsure_teacher, tmp_path):
    folder = write_dataset(tmp_path / "partial", keep=(1,), cases=("a",))
    write_dataset(tmp_path / "other", cases=("b",), seed=1)
    for kind in ("imagesTr", "labelsTr"):
        for path in (tmp_path / "other" / kind).iterdir():
            shutil.copy(path, folder / kind)
    run = adapt(data=folder, unlabelled=scans, missing_label="unannotated").run
    assert run.outcome == "finished"


def test_several_seeds_learn_from_the_same_scans(adapt, scans):
    run = adapt(unlabelled=scans, seeds=2).run
    assert run.soup is not None
    assert run.unlabelled.scans == ("scan0", "scan1")


def test_auto_chooses_among_methods_that_train_on_crops(blobs, scans, workspace):
    model = find_model("tiny", workspace)
    methods = tuple(candidate_methods({}, model))
    options = {"candidates": methods, "mapping": {"tumour": "liver"}, "k": 2}

    def names(**more):
        request = adapt_request(blobs, "tiny", "full", workspace, **options, **more)
        return {method.name for method in _applicable(configure(request, workspace))}

    assert names() == {"full", "lora", "linear-probe", "spatial-adapter", "zero-shot"}
    assert names(unlabelled=found(scans, blobs)) == {"full", "lora"}


# --- what is recorded, and kept -------------------------------------------------------------------


def test_run_and_manifest_name_the_scans(adapt, scans, tmp_path):
    adapter = adapt(unlabelled=scans)
    described = adapter.run.unlabelled
    assert (described.scans, described.path) == (("scan0", "scan1"), str(scans))
    assert adapter.manifest.unlabelled == described.model_copy(update={"path": ""})
    assert adapter.manifest.k == len(adapter.manifest.support) == 2
    assert api.options_of_run(adapter.path.with_name("run.json"))["unlabelled"] == str(scans)


def test_documents_of_a_training_without_them_are_as_before(adapt, tmp_path):
    adapter = adapt(output=tmp_path / "run")
    for name in ("run.json", "plan.json"):
        assert "unlabelled" not in (tmp_path / "run" / name).read_text()
    assert "unlabelled" not in adapter.manifest.model_dump_json()
    assert adapter.run.recipe.get("ema_decay") is None


def test_other_scans_are_another_run(adapt, scans, tmp_path):
    output = tmp_path / "run"
    first = adapt(unlabelled=scans, output=output)
    written = first.path.stat().st_mtime_ns
    assert adapt(unlabelled=scans, output=output).path.stat().st_mtime_ns == written
    with pytest.raises(FseftError, match=r"scans without labels scan0, scan1 \(requested none\)"):
        adapt(output=output)
    write_volume(scans / "scan2.nrrd", a_scan(30)[0], GEOMETRY)
    with pytest.raises(FseftError, match=r"scan1 \(requested scan0, scan1, scan2\)"):
        adapt(unlabelled=scans, output=output)
    assert adapt(unlabelled=scans).path.parent != adapt().path.parent


def test_the_scans_are_preprocessed_once(adapt, scans, workspace):
    adapt(unlabelled=scans)
    folders = {path: path.stat().st_mtime_ns for path in workspace.root.rglob("scan?-*")}
    assert len(folders) == 2
    adapt(unlabelled=scans, overwrite=True)
    assert folders == {path: path.stat().st_mtime_ns for path in workspace.root.rglob("scan?-*")}


def test_a_training_case_in_the_folder_is_left_out_by_its_content(adapt, blobs, scans, caplog):
    shutil.copy(blobs / "imagesTr" / "a_0000.nii.gz", scans / "renamed.nii.gz")
    adapter = adapt(unlabelled=scans, cases=["a", "b"])
    assert "left out renamed: training cases have labels" in caplog.text
    assert adapter.run.unlabelled.scans == ("scan0", "scan1")


def test_held_out_cases_are_left_out_of_the_scans(adapt, blobs):
    adapter = adapt(unlabelled=blobs / "imagesTr", cases=["a", "b"], cross_validate=True, epochs=1)
    folds = adapter.path.parent.glob("cross-validation/fold-*/run.json")
    used = [read_document(path, Run).unlabelled.scans for path in folds]
    assert used == [("c", "d"), ("c", "d")]


# --- cost -----------------------------------------------------------------------------------------


def test_the_plan_counts_the_crops_of_scans_without_labels(blobs, scans, workspace):
    unlabelled = found(scans, blobs)

    def plan(**options):
        request = adapt_request(blobs, "tiny", "lora", workspace, k=2, minutes=2, **options)
        return configure(request, workspace).plan

    for options in ({}, {"device": "auto"}):  # planned for the run, and stored
        without, with_scans = plan(**options), plan(unlabelled=unlabelled, **options)
        steps = [steps_in_time(item, 2) for item in (without, with_scans)]
        assert steps[0] == pytest.approx(5 / 3 * steps[1], rel=0.01)
    assert plan(unlabelled=unlabelled).memory_bytes > plan().memory_bytes


def test_a_stored_plan_whose_step_fills_the_memory_is_refused(blobs, scans, workspace):
    options = {"workspace": workspace, "device": "cpu", "name": "full"}
    needed = api.plan(blobs, "tiny", **options)[1].memory_bytes
    api.plan(blobs, "tiny", memory_bytes=needed, **options)
    request = adapt_request(
        blobs,
        "tiny",
        "lora",
        workspace,
        k=2,
        plan_name="full",
        device="auto",
        unlabelled=found(scans, blobs),
    )
    assert configure(replace(request, unlabelled=None), workspace).plan.memory_bytes == needed
    with pytest.raises(FseftError, match="the smallest training step of resunet needs"):
        configure(request, workspace)


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["linear-probe", "spatial-adapter", "zero-shot"])
def test_methods_that_train_no_network_on_crops_are_refused(adapt, scans, method):
    with pytest.raises(FseftError, match=f"{method!r} does not train on crops"):
        adapt(method, unlabelled=scans, labels=["Left kidney"])


def test_a_folder_of_training_cases_is_refused(adapt, blobs):
    with pytest.raises(FseftError, match="no scan but training cases"):
        adapt(k=4, unlabelled=blobs / "imagesTr")


def test_a_folder_that_does_not_exist_or_is_empty_is_refused(adapt, tmp_path):
    with pytest.raises(FseftError, match="does not exist"):
        adapt(unlabelled=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FseftError, match="no scan was found"):
        adapt(unlabelled=tmp_path / "empty")


def test_a_broken_scan_is_named_before_the_training(adapt, scans, tmp_path):
    (scans / "scan1.nrrd").write_bytes(b"NRRD")
    with pytest.raises(FseftError, match=r"scan1.*scan1\.nrrd"):
        adapt(unlabelled=scans, output=tmp_path / "run")
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_label_map_among_the_scans_is_mentioned(adapt, scans, caplog):
    write_volume(scans / "labels.nrrd", a_scan()[1][None].astype(np.int16), GEOMETRY)
    adapt(unlabelled=scans, epochs=1)
    assert "labels" in caplog.text
    assert "as a label map does" in caplog.text
