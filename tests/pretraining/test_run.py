"""Pre-training: one model from datasets that each annotate other structures."""

from __future__ import annotations

import errno
import json
import logging
import shutil
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fseft import api
from fseft.api._resolve import as_dataset, as_initial_weights
from fseft.errors import FseftError
from fseft.evaluation.matching import match_files
from fseft.evaluation.run import evaluate
from fseft.experiment import checkpoints
from fseft.experiment.callbacks import Callbacks
from fseft.experiment.settings import training_config
from fseft.inference.adapter_groups import open_adapters
from fseft.inference.request import PredictRequest
from fseft.inference.run import predict
from fseft.learn.networks.state_dict_mapping import LoadReport
from fseft.model_zoo.catalogue import find_model
from fseft.phantom import PhantomSet, write_phantoms
from fseft.pretraining import datasets as preparation
from fseft.pretraining import export, run
from fseft.pretraining import training as step
from fseft.pretraining.configure import DEFAULT_TRAINING, PretrainRequest, split_settings
from fseft.pretraining.initialisation import Initialisation, build_initialised_network
from fseft.schemas import Contract, Intensity, ModelCard
from fseft.volume.geometry import reorient
from fseft.volume.image import read_labels, read_volume, write_labels, write_volume
from fseft.workspace import Workspace, exclusive_lock, file_digest, read_document
from tests.sample_data import (
    adapt,
    adapt_request,
    equal_tensors,
    write_dataset,
    write_model,
)

TRAINING = DEFAULT_TRAINING.model_copy(update={"epochs": 2})
HPARAMS = {"channels": [4, 8], "features": 4}


def resolved(request, workspace):
    """The request with the datasets and the model that its folders and names stand for."""
    datasets = tuple(map(as_dataset, request.datasets))
    init = as_initial_weights(request.init or "", workspace)
    return replace(request, datasets=datasets, init=init)


def pretrain(request, workspace, *observers):
    return run.pretrain(resolved(request, workspace), workspace, *observers)


def prepare_training_datasets(request, workspace, *observers):
    request = resolved(request, workspace)
    return preparation.prepare_training_datasets(request, workspace, *observers)


class KilledError(Exception):
    """A kill."""


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "workspace")


@pytest.fixture
def base(tmp_path):
    """A CT dataset with a kidney, an MR dataset with a kidney of another spelling and a tumour."""
    first = write_dataset(
        tmp_path / "first", labels={"Left kidney": 1}, cases=("a", "b"), keep=(1,)
    )
    labels = {"tumour": 7, "kidney (L)": 1}
    second = write_dataset(tmp_path / "second", labels=labels, cases=("c",), channel="MR", seed=5)
    return PretrainRequest(
        (first, second),
        "made",
        hparams=HPARAMS,
        window=(-200, 500),
        patch_size=(32, 32, 32),
        training=TRAINING,
        steps_per_epoch=2,
        licence="CC0",
        validation_fraction=0.0,
    )


def test_the_model_has_the_union_of_the_structures(base, workspace):
    card = pretrain(base, workspace)
    assert card == read_document(workspace.model("made") / "model.json", ModelCard)
    assert card.classes == ("kidney_left", "tumour")
    assert (card.datasets, card.licence, card.activation) == (("first", "second"), "CC0", "sigmoid")
    assert card.sha256 == file_digest(workspace.model("made") / "weights.safetensors")
    assert card.provenance["datasets"] == {
        "first": {"cases": 2, "held_out": 0, "annotated": ["kidney_left"]},
        "second": {"cases": 1, "held_out": 0, "annotated": ["kidney_left", "tumour"]},
    }
    assert api.verify_model("made", workspace).card.hparams == HPARAMS
    names = {path.name for path in workspace.model("made").iterdir()}
    assert names == {"model.json", "weights.safetensors", "curve.jsonl"}


def test_before_training_every_structure_is_unlikely_everywhere():
    _, network, _ = build_initialised_network(
        Initialisation("resunet", HPARAMS), ("liver", "tumour"), seed=0
    )
    probabilities = network(torch.zeros(1, 1, 32, 32, 32)).sigmoid()
    assert probabilities.mean() < 0.1


def test_the_model_can_be_adapted_and_predicts(base, workspace, request_for, blobs, tmp_path):
    pretrain(base, workspace)
    adapter = adapt(request_for("zero-shot", model="made", workspace=workspace), workspace).adapter
    result = predict(
        PredictRequest(
            (blobs / "imagesTr",), tmp_path / "out", open_adapters((adapter,), workspace)
        )
    )
    assert result.segmented == ["a", "b", "c", "d"]
    assert set(np.unique(read_labels(tmp_path / "out" / "a.nii.gz").array)) <= {0, 1, 7}


def test_a_class_counts_only_where_its_dataset_annotates_it(base, workspace, monkeypatch):
    seen = []
    losses = step.masked_losses

    def noting(logits, reference, annotated, *others, **options):
        seen.extend(zip(reference, annotated, strict=True))
        return losses(logits, reference, annotated, *others, **options)

    monkeypatch.setattr(step, "masked_losses", noting)
    pretrain(replace(base, training=TRAINING.model_copy(update={"epochs": 6})), workspace)
    assert {tuple(annotated.tolist()) for _, annotated in seen} == {(1, 0), (1, 1)}
    assert all(not reference[1].any() for reference, annotated in seen if not annotated[1])
    assert any(reference[1].any() for reference, annotated in seen if annotated[1])
    assert any(reference[0].any() for reference, annotated in seen if not annotated[1])


class KillAfter(Callbacks):
    """Interrupts the training after an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_end(self, epoch):
        if epoch.number > self.epoch:
            raise KilledError


class Recorder(Callbacks):
    """Records the numbers of epochs, the Dice of validation, and the progress of stages."""

    def __init__(self):
        self.epochs, self.dice, self.stages = [], [], []

    def on_epoch_end(self, epoch):
        self.epochs.append(epoch.number)

    def on_validation_end(self, epoch, dice):  # noqa: ARG002 - the name that callers use
        self.dice.append(dice)

    @contextmanager
    def progress(self, description, total):
        self.stages.append((description, total))
        yield self.stages.append


@pytest.fixture(autouse=True)
def log(caplog):
    caplog.set_level(logging.INFO, "fseft")
    return caplog


def warnings_in(log):
    return [record.getMessage() for record in log.records if record.levelno >= logging.WARNING]


def notes_in(log):
    return [record.getMessage() for record in log.records if record.levelno == logging.INFO]


def test_an_interrupted_run_resumes_to_the_same_weights(base, workspace, tmp_path, log):
    base = replace(base, training=TRAINING.model_copy(update={"epochs": 3}))
    with pytest.raises(KilledError):
        pretrain(base, workspace, KillAfter(1))
    assert workspace.models() == []
    recorder = Recorder()
    pretrain(base, workspace, recorder)
    assert recorder.epochs == [2, 3]
    assert notes_in(log)[-1] == "resuming after epoch 1 of 3"
    whole = Workspace(tmp_path / "other")
    pretrain(base, whole)
    resumed, uninterrupted = (
        load_file(s.model("made") / "weights.safetensors") for s in (workspace, whole)
    )
    assert equal_tensors(resumed, uninterrupted)


def test_a_checkpoint_made_with_other_settings_is_left_only_if_asked_to(base, workspace):
    with pytest.raises(KilledError):
        pretrain(base, workspace, KillAfter(1))
    other = replace(base, seed=1, training=TRAINING.model_copy(update={"learning_rate": 0.01}))
    recorder = Recorder()
    differences = (
        r"unfinished pre-training with other settings \(seed: 0, requested 1; "
        r"learning_rate: 0.001, requested 0.01\)"
    )
    for resume in (False, True):
        with pytest.raises(FseftError, match=differences):
            pretrain(replace(other, resume=resume), workspace, recorder)
    assert recorder.stages == []  # no case was read
    pretrain(replace(other, overwrite=True), workspace, recorder)
    assert recorder.epochs == [1, 2]


def test_a_model_stays_until_its_replacement_is_complete(base, workspace, monkeypatch):
    first = pretrain(base, workspace)

    def killed(*_):
        raise KilledError

    monkeypatch.setattr(export, "write_document", killed)
    with pytest.raises(KilledError):
        pretrain(replace(base, seed=1, overwrite=True), workspace)
    assert find_model("made", workspace).weights.sha256 == first.sha256
    monkeypatch.undo()
    second = pretrain(replace(base, seed=1, overwrite=True), workspace)
    assert find_model("made", workspace).weights.sha256 == second.sha256 != first.sha256
    names = {path.name for path in workspace.model("made").iterdir()}
    assert names == {"weights.safetensors", "model.json", "curve.jsonl"}


def test_a_checkpoint_of_other_cases_is_left_only_if_asked_to(base, workspace):
    with pytest.raises(KilledError):
        pretrain(base, workspace, KillAfter(1))
    with pytest.raises(FseftError, match=r"other settings \(the cases or their labels; structures"):
        pretrain(replace(base, datasets=base.datasets[:1]), workspace)


def test_resume_allows_another_learning_rate_and_other_cases(base, workspace, log):
    with pytest.raises(KilledError):
        pretrain(base, workspace, KillAfter(1))
    mended = replace(base, training=TRAINING.model_copy(update={"learning_rate": 0.0001}))
    (base.datasets[0] / "labelsTr" / "b.nii.gz").unlink()
    with pytest.raises(
        FseftError, match=r"learning_rate: 0.001, requested 0.0001\).*Set `resume` to continue"
    ):
        pretrain(mended, workspace)
    recorder = Recorder()
    pretrain(replace(mended, resume=True), workspace, recorder)
    assert recorder.epochs == [2]
    differences = "learning_rate: 0.001, requested 0.0001; the cases or their labels"
    warning = f"resuming with different settings ({differences}): the result will differ"
    assert any(message.startswith(warning) for message in warnings_in(log))


def test_a_checkpoint_for_other_structures_is_not_gone_on_with(base, workspace):
    with pytest.raises(KilledError):
        pretrain(base, workspace, KillAfter(1))
    with pytest.raises(FseftError, match=r"structures: kidney_left, tumour, requested kidney_left"):
        pretrain(replace(base, datasets=base.datasets[:1], resume=True), workspace)


def test_a_model_that_has_lost_its_weights_is_made_again(base, workspace):
    first, recorder = pretrain(base, workspace), Recorder()
    (workspace.model("made") / "weights.safetensors").write_bytes(b"half")
    assert pretrain(base, workspace, recorder).sha256 == first.sha256
    assert recorder.epochs == [1, 2]


def test_a_licence_is_inherited_and_another_one_is_reported(base, workspace, log):
    first = pretrain(base, workspace)
    again = pretrain(replace(base, name="again", init="made", hparams={}, licence=""), workspace)
    assert (again.licence, again.datasets) == (first.licence, first.datasets)
    pretrain(replace(base, name="other", init="made", hparams={}, licence="MIT"), workspace)
    warning = "the weights of made are under CC0: check that it permits the licence MIT"
    assert warning in warnings_in(log)


def test_what_a_kill_amid_a_save_left_is_removed(base, workspace):
    left = workspace.model("made") / ".fseft-tmp-0123456789ab" / "new" / "checkpoint-000001.pt"
    left.parent.mkdir(parents=True)
    (left.parents[1] / ".lock").touch()
    left.write_bytes(b"half")
    pretrain(base, workspace)
    assert not left.parents[1].exists()


def test_weights_may_be_stored_in_half_precision(base, workspace):
    pretrain(replace(base, fp16=True), workspace)
    tensors = load_file(workspace.model("made") / "weights.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}


def test_counts_stay_whole_numbers_in_half_precision(base, workspace):
    pretrain(
        replace(
            base,
            fp16=True,
            architecture="suprem-unet",
            hparams={"width": 4},
            training=TRAINING.model_copy(update={"epochs": 1}),
        ),
        workspace,
    )
    tensors = load_file(workspace.model("made") / "weights.safetensors")
    counts = {
        name: tensor.dtype
        for name, tensor in tensors.items()
        if name.endswith("num_batches_tracked")
    }
    assert set(counts.values()) == {torch.int64}
    assert {tensor.dtype for name, tensor in tensors.items() if name not in counts} == {
        torch.float16
    }


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"patch_size": (40, 40, 40)},
            "40,40,40 does not suit .*divisible by 16,16,16.*Use for example 48,48,48",
        ),
        ({"patch_size": (16, 32, 32)}, "at least 32,32,32.*Use for example 32,32,32"),
        ({"resume": True, "overwrite": True}, "resume and overwrite exclude each other"),
        ({"name": "phantom-tiny"}, "the name 'phantom-tiny' belongs to a model"),
        (
            {"hparams": {"affine": "maybe"}},
            r"the network does not accept affine='maybe': must be true or false.*default: True",
        ),
        (
            {"hparams": {"channels": 8}},
            "the network does not accept channels=8: must be a list",
        ),
        ({"architecture": "resunett"}, "Did you mean resunet"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused(changed, message, base, workspace):
    with pytest.raises(FseftError, match=message):
        pretrain(replace(base, **changed), workspace)
    assert not (workspace.root / "models").exists()


def test_a_dataset_without_labels_is_refused_by_name(base, workspace):
    for path in (base.datasets[1] / "labelsTr").iterdir():
        path.unlink()
    with pytest.raises(FseftError, match=r"second: has no labelled case"):
        pretrain(base, workspace)


@pytest.mark.parametrize("resume", [False, True])
def test_a_finished_request_is_not_trained_again(resume, base, workspace, log):
    card, recorder = pretrain(base, workspace), Recorder()
    assert pretrain(replace(base, resume=resume), workspace, recorder) == card
    assert recorder.epochs == []
    assert notes_in(log)[-1] == "the model 'made' was trained with the same settings before"


def test_a_model_made_with_other_settings_is_replaced_only_if_asked_to(base, workspace):
    first, other = (
        pretrain(base, workspace),
        replace(base, seed=1, hparams={**HPARAMS, "features": 8}),
    )
    recorder = Recorder()
    with pytest.raises(
        FseftError,
        match=r"settings \(network: .*features=4, requested .*=8; seed: 0, requested 1\).*overwrite",
    ):
        pretrain(other, workspace, recorder)
    assert recorder.stages == []  # no case was read
    assert api.verify_model("made", workspace).card.sha256 == first.sha256
    assert pretrain(replace(other, overwrite=True), workspace).sha256 != first.sha256


def test_overwriting_trains_even_the_same_model_again(base, workspace):
    first, recorder = pretrain(base, workspace), Recorder()
    assert pretrain(replace(base, overwrite=True), workspace, recorder).sha256 == first.sha256
    assert recorder.epochs == [1, 2]


def test_a_killed_overwriting_is_gone_on_with_by_the_same_settings(base, workspace):
    pretrain(base, workspace)
    other, recorder = replace(base, seed=1), Recorder()
    with pytest.raises(KilledError):
        pretrain(replace(other, overwrite=True), workspace, KillAfter(1))
    pretrain(other, workspace, recorder)
    assert recorder.epochs == [2]


def test_two_processes_do_not_train_one_model(base, workspace):
    with (
        exclusive_lock(workspace.model("made")),
        pytest.raises(FseftError, match="models/made: in use by another process"),
    ):
        pretrain(base, workspace)


def test_the_training_is_summarised_before_it_begins(base, workspace, log):
    with pytest.raises(KilledError):
        pretrain(replace(base, validation_fraction=0.9), workspace, KillAfter(0))
    lines = notes_in(log)
    assert lines[2:] == [
        "first: 1 case for training, 1 held out",
        "second: 1 case for training, 0 held out",
        "2 structures, with the number of training cases: kidney_left 2, tumour 1",
        (
            "intensities: MR z-score per case, CT clip to [-200, 500], scale to [0, 1]; "
            "spacing: that of each dataset"
        ),
        (
            f"resunet, {lines[-1].split()[1]} parameters, on cpu: 2 epochs of 2 steps, each of 2 crops "
            "of 32×32×32 voxels"
        ),
    ]
    assert warnings_in(log) == [
        (
            "a validation fraction of 0.9 leaves no validation case with tumour: no Dice is reported "
            "for it"
        )
    ]


def test_the_card_holds_the_settings(base, workspace):
    provenance = pretrain(replace(base, minutes=9.0), workspace).provenance
    assert (provenance["epochs"], provenance["steps"]) == (2, 4)
    expected = {
        "network": "channels=4,8 features=4",
        "temperature": "balanced",
        "steps_per_epoch": "2",
        "ema_decay": "0.999",
    }
    assert expected.items() <= provenance["settings"].items()
    ineffective = {"feature_passes", "early_stopping", "features"}
    assert not ineffective & provenance["settings"].keys()


def test_the_order_of_settings_does_not_matter(base, workspace):
    card = pretrain(base, workspace)
    turned, recorder = replace(base, hparams=dict(reversed(HPARAMS.items()))), Recorder()
    assert pretrain(turned, workspace, recorder) == card
    assert recorder.epochs == []


@pytest.mark.parametrize(
    ("setting", "hint"),
    [
        ({"channel": [4, 8]}, "a setting 'channel'. Did you mean channels"),
        ({"ema_decoy": 0.9}, "a setting 'ema_decoy'. Did you mean ema_decay"),
    ],
)
def test_an_unknown_setting_is_refused_with_the_nearest_names(setting, hint, base, workspace):
    training, hparams = split_settings(setting)
    with pytest.raises(FseftError, match=f"neither the training nor the network has {hint}"):
        pretrain(replace(base, hparams=hparams), workspace)
    assert not training
    assert not workspace.root.exists()


def test_settings_of_components_are_part_of_the_training_and_are_recorded(base):
    written = {"loss.ce_weight": 0.5, "channels": [4, 8]}
    assert split_settings(written) == ({"loss.ce_weight": 0.5}, {"channels": [4, 8]})
    training = training_config(TRAINING, {"loss.ce_weight": 0.5})
    settings = replace(base, training=training).settings()
    assert (settings["components"], settings["plugins"]) == ("loss.ce_weight=0.5", "default")
    assert base.settings()["components"] == "default"


def test_the_contract_names_the_modalities_that_were_seen(base, workspace):
    assert set(pretrain(base, workspace).contract.intensity) == {"ct", "mr"}
    assert set(
        pretrain(
            replace(base, datasets=base.datasets[1:], name="other"), workspace
        ).contract.intensity
    ) == {"mr"}


def test_the_contract_has_the_ranges_of_voxels_and_structures_that_were_seen(base, workspace):
    contract = pretrain(base, workspace).contract
    smallest, largest = contract.spacing_range_mm
    assert contract.spacing_mm is None
    assert 0 < smallest <= largest
    smallest, largest = contract.structure_range_voxels
    assert 1 < smallest < largest < 100


def test_ct_of_all_datasets_has_one_intensity_scale_which_the_model_expects(
    base, workspace, tmp_path
):
    bright = write_dataset(
        tmp_path / "bright", labels={"liver": 7}, cases=("x",), keep=(7,), seed=9
    )
    base = replace(base, datasets=(base.datasets[0], bright, base.datasets[1]), window=None)
    sources = prepare_training_datasets(base, workspace).training
    ct = [source.crops.intensity for source in sources if source.crops.modality == "ct"]
    contract = pretrain(base, workspace).contract
    assert ct == [(contract.intensity["ct"],)] * 2
    assert set(contract.intensity) == {"ct", "mr"}


def test_what_is_declared_but_never_drawn_is_not_annotated(base, workspace, tmp_path):
    folder = write_dataset(tmp_path / "third", labels={"Left kidney": 1, "spleen": 3}, keep=(1,))
    assert pretrain(replace(base, datasets=(folder,)), workspace).classes == ("kidney_left",)


def without_labels(folder, case, ignore):
    path = folder / "labelsTr" / f"{case}.nii.gz"
    volume = read_labels(path)
    write_labels(path, np.full_like(volume.array[0], ignore), volume.geometry)


def test_a_case_without_any_annotated_voxel_is_left_out(base, workspace, log):
    first, second = base.datasets
    without_labels(first, "a", 9)
    base = replace(base, datasets=(as_dataset(first, ignore_label=9), second))
    sources = prepare_training_datasets(base, workspace).training
    names = [case.name for source in sources for case in source.cases]
    assert names == ["case b of first", "case c of second"]
    assert any("1 case without any annotated voxel (a)" in line for line in warnings_in(log))


def test_the_key_of_the_data_depends_on_which_voxels_and_structures_count(base, workspace):
    folder = write_dataset(base.datasets[0].parent / "third", cases=("a", "b"))
    for case in "ab":
        path = folder / "labelsTr" / f"{case}.nii.gz"
        volume = read_labels(path)
        kept = np.arange(volume.array.shape[1]) % 4 == 2
        label = volume.array[0] * kept[:, None, None]
        write_labels(path, label * ((label != 7) | (case == "a")), volume.geometry)
    rules = [
        {},
        {"ignore_label": 9},
        {"annotated_slices": "auto"},
        {"missing_label": "unannotated"},
    ]
    keys = set()
    for rule in rules:
        datasets = (as_dataset(folder, **rule),)
        keys.add(prepare_training_datasets(replace(base, datasets=datasets), workspace).key)
    (folder / "annotated.json").write_text('{"b": []}')
    keys.add(prepare_training_datasets(replace(base, datasets=(folder,)), workspace).key)
    assert len(keys) == 4  # the list states what the rule `unannotated` means


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"window": (300, -200)}, "the first value must be the lower one"),
        ({"spacing_mm": (0, 1, 1)}, "must be more than 0"),
        ({"spacing_mm": (90, 90, 90)}, "at a spacing of 90,90,90 mm the largest scan has . voxels"),
        ({"window": (5000, 6000)}, "first: the window 5000,6000 excludes all structures"),
        (
            {"patch_size": (4096, 4096, 4096)},
            "patch size of 4096,4096,4096 with 2 crops needs about .* GB of memory",
        ),
        (
            {"spacing_mm": (1e-4, 1e-4, 1e-4)},
            "spacing of 0.0001,0.0001,0.0001 mm has .* voxels, which needs",
        ),
        ({"patch_size": (30, 32, 32)}, "sides must be divisible by"),
        ({"name": "none"}, "'none' is not a valid name of a model"),
    ],
)
def test_what_cannot_be_trained_with_is_refused(changed, message, base, workspace):
    with pytest.raises(FseftError, match=message):
        pretrain(replace(base, **changed), workspace)


def test_a_pair_is_divided_where_another_dataset_has_its_sides(base, workspace, tmp_path, log):
    whole = write_dataset(
        tmp_path / "whole", labels={"kidneys": 1}, cases=("a", "b"), keep=(1,), seed=7
    )
    card = pretrain(replace(base, datasets=(whole, base.datasets[0])), workspace)
    assert "left and right of 'kidneys' are uncertain" in warnings_in(log)[0]
    assert card.classes == ("kidney_left", "kidney_right")
    annotated = {name: found["annotated"] for name, found in card.provenance["datasets"].items()}
    assert annotated == {"whole": ["kidney_left", "kidney_right"], "first": ["kidney_left"]}
    assert notes_in(log)[:2] == [
        "whole: kidneys -> kidney_left + kidney_right",
        "first: Left kidney -> kidney_left",
    ]


def test_a_pair_of_which_nobody_has_the_sides_stays_whole(base, workspace, tmp_path):
    whole = write_dataset(tmp_path / "whole", labels={"kidneys": 1}, keep=(1,))
    assert pretrain(replace(base, datasets=(whole,)), workspace).classes == ("kidney",)


def test_only_the_structures_that_are_wanted_are_learned(base, workspace):
    card = pretrain(replace(base, labels=("lkidney",)), workspace)
    assert card.classes == ("kidney_left",)


def test_names_that_contradict_each_other_are_refused(base, workspace, tmp_path):
    other = write_dataset(tmp_path / "other", labels={"tumor": 7}, keep=(7,))
    with pytest.raises(
        FseftError,
        match="second and other share the ambiguous structure name 'tumor'",
    ):
        pretrain(replace(base, datasets=(*base.datasets, other)), workspace)


def curve(workspace):
    lines = (workspace.model("made") / "curve.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_cases_that_are_held_out_give_a_curve_for_each_class(base, workspace):
    recorder = Recorder()
    base = replace(base, validation_fraction=0.9)
    card = pretrain(base, workspace, recorder)
    assert card.provenance["datasets"]["first"] == {
        "cases": 1,
        "held_out": 1,
        "annotated": ["kidney_left"],
    }
    assert card.provenance["datasets"]["second"]["held_out"] == 0  # its only case
    assert [line["epoch"] for line in curve(workspace)] == [1, 2]
    assert [line["dice"] for line in curve(workspace)] == recorder.dice
    for dice in recorder.dice:
        assert set(dice) == {"kidney_left"}
        assert 0 <= dice["kidney_left"] <= 1


def test_the_curve_of_a_resumed_run_has_each_epoch_once(base, workspace):
    base = replace(base, validation_fraction=0.9)
    with pytest.raises(KilledError):
        pretrain(base, workspace, KillAfter(1))
    pretrain(base, workspace)
    assert [line["epoch"] for line in curve(workspace)] == [1, 2]


def test_only_the_requested_classes_are_learned(base, workspace):
    card = pretrain(replace(base, datasets=base.datasets[1:], labels=("Tumour",)), workspace)
    assert card.classes == ("tumour",)


def test_invalid_hyperparameters_are_refused_before_any_case_is_read(base, workspace):
    for changed in ({"hparams": {"channel": [4, 8]}}, {"init": "nothing"}):
        with pytest.raises(FseftError):
            pretrain(replace(base, **changed), workspace)
    assert not workspace.root.exists()


def test_oddities_of_a_dataset_and_progress_are_reported(base, workspace, tmp_path, log):
    folder = write_dataset(
        tmp_path / "third", labels={"Left kidney": 1, "spleen": 3}, keep=(1,), cases=("x", "y")
    )
    recorder = Recorder()
    prepare_training_datasets(replace(base, datasets=(folder,)), workspace, recorder)
    assert warnings_in(log) == [
        "third: 1 declared structure absent from all cases (spleen): cannot be learned"
    ]
    assert recorder.stages == [("measure third", 2), "x", "y", ("preprocess third", 2), "x", "y"]


def test_a_validation_fraction_without_a_case_is_reported(base, workspace, log):
    pretrain(replace(base, validation_fraction=0.001), workspace)
    assert warnings_in(log) == [
        (
            "a validation fraction of 0.001 leaves no validation case: no Dice is reported; use a "
            "larger fraction"
        )
    ]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": ("tumour",)}, "first: annotates none of tumour"),
        (
            {"labels": ("tumours",)},
            "no dataset has the requested structure 'tumours'. Did you mean tumour",
        ),
        ({"init": "nothing"}, "'nothing' are neither a file nor a model"),
        (
            {"architecture": "swinunetr", "patch_size": (64,) * 3, "hparams": {"depth": 2}},
            "neither .* has a setting 'depth'. Did you mean depths",
        ),
        (
            {"architecture": "swinunetr", "patch_size": (64,) * 3, "hparams": {"feature_size": 13}},
            "does not accept feature_size=13: .*multiple of 12",
        ),
        ({"hparams": {"channels": [0, 8]}}, "resunet .*channels=0,8"),
        ({"resume": True}, "no checkpoint to resume from"),
        ({"missing_label": {"third": "absent"}}, "unknown dataset 'third'"),
        ({"temperature": -1.0}, "temperature -1: must be more than 0"),
    ],
)
def test_contradictory_options_are_refused_before_training(changed, message, base, workspace):
    with pytest.raises(FseftError, match=message):
        pretrain(replace(base, **changed), workspace)
    assert workspace.models() == []


def annotated_in(monkeypatch):
    """The masks of all crops that are trained on."""
    seen = []
    losses = step.masked_losses

    def recorded(logits, reference, annotated, *others, **options):
        seen.extend(map(tuple, annotated.tolist()))
        return losses(logits, reference, annotated, *others, **options)

    monkeypatch.setattr(step, "masked_losses", recorded)
    return seen


def test_without_masking_everything_counts_everywhere(base, workspace, monkeypatch):
    seen = annotated_in(monkeypatch)
    pretrain(replace(base, masking="none"), workspace)
    assert set(seen) == {(1, 1)}


def test_a_missing_label_may_mean_that_the_structure_was_not_annotated(
    base, workspace, monkeypatch, tmp_path
):
    folder = write_dataset(tmp_path / "third", cases=("x", "y"), seed=9)
    path = folder / "labelsTr" / "y.nii.gz"
    labels = read_labels(path)
    write_labels(path, labels.array[0] * (labels.array[0] == 1), labels.geometry)
    longer = replace(base, datasets=(folder,), steps_per_epoch=8)
    for rules, masks in (({}, {(1, 1)}), ({"third": "unannotated"}, {(1, 1), (1, 0)})):
        seen = annotated_in(monkeypatch)
        pretrain(replace(longer, missing_label=rules, overwrite=True), workspace)
        assert set(seen) == masks


def test_a_label_file_without_any_structure_defines_the_background(base, workspace):
    path = base.datasets[0] / "labelsTr" / "b.nii.gz"
    labels = read_labels(path)
    write_labels(path, 0 * labels.array[0], labels.geometry)
    (first, _) = prepare_training_datasets(base, workspace).training
    assert [(case.name, case.drawn, case.annotated) for case in first.cases] == [
        ("case a of first", (1,), (1,)),
        ("case b of first", (), (1,)),
    ]


def test_a_volume_in_two_datasets_is_used_once(base, workspace, log):
    first, second = base.datasets
    image = read_volume(first / "imagesTr" / "a_0000.nii.gz")
    turned = reorient(image.array.astype(np.float32), image.geometry, "LPS")
    write_volume(second / "imagesTr" / "z_0000.nii.gz", *turned)  # another file, the same scan
    shutil.copy(first / "labelsTr" / "a.nii.gz", second / "labelsTr" / "z.nii.gz")
    card = pretrain(base, workspace)
    assert warnings_in(log) == [
        "case z of second is the same volume as a of first: used once, with the labels of first"
    ]
    assert card.provenance["datasets"]["second"]["cases"] == 1


def test_a_full_disk_keeps_the_last_good_checkpoint(base, workspace, monkeypatch):
    base = replace(base, training=TRAINING.model_copy(update={"epochs": 3}))
    save, saved = checkpoints.save_checkpoint, []

    def full_at_the_second(path, state):
        if saved:
            monkeypatch.setattr(type(path), "write_bytes", raise_full)
        save(path, state)
        saved.append(path)

    def raise_full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context():
        monkeypatch.setattr(checkpoints, "save_checkpoint", full_at_the_second)
        with pytest.raises(
            FseftError, match=r"checkpoint-000002\.pt: the disk is full\. Free some space"
        ):
            pretrain(base, workspace)
    monkeypatch.undo()
    assert [path.name for path in workspace.model("made").glob("*.pt")] == ["checkpoint-000001.pt"]
    recorder = Recorder()
    pretrain(base, workspace, recorder)
    assert recorder.epochs == [2, 3]


def test_a_loss_that_is_not_a_number_names_the_case_and_keeps_the_last_good_checkpoint(
    base, workspace, monkeypatch
):
    losses, steps = step.masked_losses, []

    def broken(*arguments, **options):
        steps.append(1)
        return losses(*arguments, **options) * (float("nan") if len(steps) == 4 else 1)

    monkeypatch.setattr(step, "masked_losses", broken)
    with pytest.raises(
        FseftError,
        match=r"loss is nan at step 3 in case . of (first|second), crop of 32×32×32 voxels",
    ):
        pretrain(base, workspace)
    assert [path.name for path in workspace.model("made").glob("*.pt")] == ["checkpoint-000001.pt"]


def test_lack_of_memory_is_one_line_and_keeps_the_last_good_checkpoint(
    base, workspace, monkeypatch
):
    losses, steps = step.masked_losses, []

    def short(*arguments, **options):
        steps.append(1)
        if len(steps) == 4:
            raise MemoryError
        return losses(*arguments, **options)

    monkeypatch.setattr(step, "masked_losses", short)
    with pytest.raises(
        FseftError, match=r"a training step does not fit the memory.*smaller patch size"
    ):
        pretrain(base, workspace)
    assert [path.name for path in workspace.model("made").glob("*.pt")] == ["checkpoint-000001.pt"]


def test_the_requested_number_of_checkpoints_is_kept(base, workspace):
    base = replace(base, keep=2, training=TRAINING.model_copy(update={"epochs": 4}))
    with pytest.raises(KilledError):
        pretrain(base, workspace, KillAfter(3))
    names = sorted(path.name for path in workspace.model("made").glob("*.pt"))
    assert names == ["checkpoint-000002.pt", "checkpoint-000003.pt"]


def test_the_patch_suits_the_network_of_the_initial_model(base, workspace):
    """One that downsamples twice accepts patches that the default network does not."""
    small = replace(
        base,
        architecture="dynunet",
        hparams={"filters": [4, 8, 8], "strides": [2, 2]},
        patch_size=(20, 20, 20),
    )
    made = pretrain(small, workspace)
    following = replace(small, name="next", architecture="", hparams={}, init="made")
    assert pretrain(following, workspace).hparams == made.hparams
    with pytest.raises(FseftError, match="22,20,20 does not suit the network"):
        pretrain(replace(following, name="odd", patch_size=(22, 20, 20)), workspace)


def test_a_model_of_the_list_is_gone_on_with_row_by_row(base, workspace):
    before = pretrain(base, workspace)
    no_steps = TRAINING.model_copy(
        update={"epochs": 1, "learning_rate": 1e-12, "weight_decay": 0.0}
    )
    last = replace(
        base, name="next", datasets=base.datasets[1:], labels=("tumour",), hparams={}, init="made"
    )
    card = pretrain(replace(last, training=no_steps), workspace)
    old, new = (
        load_file(workspace.model(name) / "weights.safetensors") for name in ("made", "next")
    )
    assert card.hparams == before.hparams
    torch.testing.assert_close(new["head.weight"][0], old["head.weight"][1])
    for name in old.keys() - {"head.weight", "head.bias"}:
        torch.testing.assert_close(new[name], old[name])
    assert card.provenance["init"] == {"from": "made", "sha256": before.sha256}
    report = LoadReport.model_validate(card.provenance["load_report"])
    head = {name: tensor.numel() for name, tensor in old.items() if name.startswith("head.")}
    assert report.parameters == before.parameters - sum(head.values())
    assert report.describe()[1:] == ["head rows copied from the model: tumour"]


def test_initial_weights_with_another_preprocessing_are_reported(base, workspace, log):
    contract = Contract(
        orientation="SPL",
        spacing_mm=(3, 3, 5),
        intensity={"ct": Intensity(scheme="window", low=0, high=9)},
    )
    write_model(workspace, "found", contract=contract)
    pretrain(replace(base, hparams={}, init="found"), workspace)
    assert warnings_in(log)[0] == (
        "the weights of found expect axes SPL instead of RAS (cannot be changed); spacing 3,3,5 mm "
        "instead of that of each dataset; CT clip to [0, 9], scale to [0, 1] instead of clip to "
        "[-200, 500], scale to [0, 1]"
    )


def test_a_head_that_texts_drive_is_left_behind(base, workspace):
    hparams = {"width": 4, "text_classes": 5}
    write_model(
        workspace, "universal", architecture="suprem-unet", hparams=hparams, scope="network"
    )
    card = pretrain(replace(base, hparams={}, init="universal"), workspace)
    assert card.hparams == {"width": 4}
    stored = load_file(workspace.model("made") / "weights.safetensors")
    assert not [name for name in stored if "text" in name]


def test_a_plan_of_the_user_stays_as_it_is(base, workspace):
    folder = base.datasets[0]
    api.plan(folder, "none", device="cpu", memory_bytes=10**9, workspace=workspace)
    before = workspace.plan(folder.name, "none").read_bytes()
    prepare_training_datasets(base, workspace)
    assert workspace.plan(folder.name, "none").read_bytes() == before


def test_a_structure_that_was_looked_for_and_never_found_counts_as_background(
    base, workspace, tmp_path
):
    labels = {"kidney (L)": 1, "liver tumour": 7}
    normals = write_dataset(tmp_path / "normals", labels=labels, cases=("a",), keep=(1,), seed=7)
    liver = write_dataset(
        tmp_path / "tumours", labels={"liver tumour": 7}, cases=("b",), keep=(7,), seed=8
    )
    (normals / "annotated.json").write_text(json.dumps({"a": ["kidney (L)", "liver tumour"]}))
    assembly = prepare_training_datasets(replace(base, datasets=(normals, liver)), workspace)
    assert assembly.classes == ("kidney_left", "liver_tumor")
    annotated = {
        source.name: [case.annotated for case in source.cases] for source in assembly.training
    }
    assert annotated == {"normals": [(1, 2)], "tumours": [(2,)]}


def test_a_side_that_was_not_requested_is_not_learned(base, workspace, tmp_path):
    whole = write_dataset(
        tmp_path / "whole", labels={"kidneys": 1}, cases=("a", "b"), keep=(1,), seed=7
    )
    assembly = prepare_training_datasets(
        replace(base, datasets=(whole,), labels=("kidney_left",)), workspace
    )
    assert assembly.classes == ("kidney_left",)


def test_a_side_that_no_voxel_shows_is_not_drawn(base, workspace, tmp_path):
    one_sided = write_dataset(
        tmp_path / "whole", labels={"kidneys": 1}, cases=("a", "b"), keep=(1,), seed=7
    )
    assembly = prepare_training_datasets(
        replace(base, datasets=(one_sided, base.datasets[0])), workspace
    )
    for source in assembly.training:
        for case in source.cases:
            found = {
                source.crops.classes[value]
                for value in case.cached.classes
                if value in source.crops.classes
            }
            assert set(case.drawn) == found


def test_a_file_with_an_encoder_alone_starts_what_it_holds(base, workspace, tmp_path):
    pretrain(base, workspace)
    tensors = load_file(workspace.model("made") / "weights.safetensors")
    encoder = {
        f"module.{name}": tensor
        for name, tensor in tensors.items()
        if name.startswith("body.model.0")
    }
    torch.save({"state_dict": encoder, "epoch": 3}, tmp_path / "encoder.pt")
    card = pretrain(replace(base, name="next", init=str(tmp_path / "encoder.pt")), workspace)
    report = card.provenance["load_report"]
    assert report["loaded"] == len(encoder)
    assert report["missing"]
    torch.save({"state_dict": {"other.weight": torch.ones(2)}}, tmp_path / "other.pt")
    with pytest.raises(
        FseftError, match=r"other.pt: contains no tensor that fits the network resunet"
    ):
        pretrain(replace(base, name="next", init=str(tmp_path / "other.pt")), workspace)
    with pytest.raises(FseftError, match="'made' have the architecture resunet, not unet"):
        pretrain(replace(base, name="next", init="made", architecture="unet"), workspace)


@pytest.mark.full
@pytest.mark.parametrize("option", [{"checkpoint_activations": True}, {"workers": 2}])
def test_memory_and_processes_change_no_result(option, base, workspace, tmp_path):
    plain = pretrain(base, workspace)
    assert pretrain(replace(base, **option), Workspace(tmp_path / "other")).sha256 == plain.sha256


def test_phantoms_become_a_model_that_is_adapted_predicts_and_is_scored(workspace, tmp_path):
    phantoms = [
        PhantomSet("lungs", "ct", ("lung_right", "lung_left", "heart"), cases=3, seed=1),
        PhantomSet("livers", "ct", ("liver", "heart"), cases=3, seed=2),
    ]
    for one in phantoms:
        write_phantoms(tmp_path / one.name, one, test_cases=1, spacing_mm=9.0)
    folders = tuple(tmp_path / one.name for one in phantoms)
    request = PretrainRequest(
        folders,
        "made",
        hparams=HPARAMS,
        patch_size=(32, 32, 32),
        training=TRAINING,
        steps_per_epoch=4,
        window=(-200, 300),
    )
    card = pretrain(request, workspace)
    assert card.classes == ("heart", "liver", "lung_left", "lung_right")
    settings = ("epochs=2", "crops_per_step=1", "early_stopping=false")
    adapted = adapt_request(folders[1], "made", "linear-probe", workspace, k=2, settings=settings)
    adapter = adapt(adapted, workspace).adapter
    out = tmp_path / "out"
    assert predict(
        PredictRequest((folders[1] / "imagesTs",), out, open_adapters((adapter,), workspace))
    ).segmented == ["case_003"]
    scores = evaluate(match_files(out, folders[1] / "labelsTs"), workers=1)
    assert set(scores.classes) == {"liver", "heart"}
    assert 0 <= scores.mean["dice"] <= 1
