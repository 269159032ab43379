"""Pre-training: one model from datasets that each annotate other structures."""

from __future__ import annotations

import errno
import json
import shutil
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fseft import api
from fseft.demo.phantom import PhantomSet, write_phantoms
from fseft.errors import FseftError
from fseft.evaluation.matching import match_files
from fseft.evaluation.run import evaluate
from fseft.experiment import checkpoints
from fseft.inference.run import PredictRequest, predict
from fseft.model_zoo.conversion import verify_model
from fseft.pretraining import run as step
from fseft.pretraining.configure import RECIPE as STANDARD
from fseft.pretraining.configure import PretrainRequest, Watcher, split_settings
from fseft.pretraining.datasets import assemble
from fseft.pretraining.initialisation import Initialisation, build_initialised_network
from fseft.pretraining.run import pretrain
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

RECIPE = STANDARD.model_copy(update={"epochs": 2})
HPARAMS = {"channels": [4, 8], "features": 4}


class KilledError(Exception):
    """A kill."""


@pytest.fixture
def store(tmp_path):
    return Workspace(tmp_path / "workspace")


@pytest.fixture
def asked(tmp_path):
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
        recipe=RECIPE,
        steps_per_epoch=2,
        licence="CC0",
        validation_share=0.0,
    )


def test_the_model_knows_the_union_of_the_structures(asked, store):
    card = pretrain(asked, store)
    assert card == read_document(store.model("made") / "model.json", ModelCard)
    assert card.classes == ("kidney_left", "tumour")
    assert (card.datasets, card.licence, card.activation) == (("first", "second"), "CC0", "sigmoid")
    assert card.sha256 == file_digest(store.model("made") / "weights.safetensors")
    assert card.provenance["datasets"] == {
        "first": {"cases": 2, "held_out": 0, "annotated": ["kidney_left"]},
        "second": {"cases": 1, "held_out": 0, "annotated": ["kidney_left", "tumour"]},
    }
    assert verify_model("made", store).hparams == HPARAMS
    names = {path.name for path in store.model("made").iterdir()}
    assert names == {"model.json", "weights.safetensors", "curve.jsonl", ".lock"}


def test_before_training_every_structure_is_unlikely_everywhere():
    _, network, _ = build_initialised_network(
        Initialisation("resunet", HPARAMS), ("liver", "tumour"), seed=0
    )
    probabilities = network(torch.zeros(1, 1, 32, 32, 32)).sigmoid()
    assert probabilities.mean() < 0.1


def test_the_model_can_be_adapted_and_predicts(asked, store, request_for, blobs, tmp_path):
    pretrain(asked, store)
    adapter = adapt(request_for("zero-shot", model="made", workspace=store), store).adapter
    result = predict(PredictRequest((blobs / "imagesTr",), tmp_path / "out", (adapter,)), store)
    assert result.segmented == ["a", "b", "c", "d"]
    assert set(np.unique(read_labels(tmp_path / "out" / "a.nii.gz").array)) <= {0, 1, 7}


def test_a_class_counts_only_where_its_dataset_annotates_it(asked, store, monkeypatch):
    seen = []
    losses = step.masked_losses

    def noting(logits, reference, annotated, loss):
        seen.extend(zip(reference, annotated, strict=True))
        return losses(logits, reference, annotated, loss)

    monkeypatch.setattr(step, "masked_losses", noting)
    pretrain(replace(asked, recipe=RECIPE.model_copy(update={"epochs": 6})), store)
    assert {tuple(annotated.tolist()) for _, annotated in seen} == {(1, 0), (1, 1)}
    assert all(not reference[1].any() for reference, annotated in seen if not annotated[1])
    assert any(reference[1].any() for reference, annotated in seen if annotated[1])
    assert any(reference[0].any() for reference, annotated in seen if not annotated[1])


def killed_after(epoch):
    def on_epoch(done, dice):
        if done.number > epoch:
            raise KilledError

    return Watcher(on_epoch)


def noting(epochs):
    return Watcher(lambda epoch, _: epochs.append(epoch))


def test_a_killed_pre_training_goes_on_to_the_very_same_weights(asked, store, tmp_path):
    asked = replace(asked, recipe=RECIPE.model_copy(update={"epochs": 3}))
    with pytest.raises(KilledError):
        pretrain(asked, store, killed_after(1))
    assert store.models() == []
    epochs, told = [], []
    pretrain(asked, store, replace(noting(epochs), note=told.append))
    assert [epoch.number for epoch in epochs] == [2, 3]
    assert told[-1] == "goes on after epoch 1 of 3"
    whole = Workspace(tmp_path / "other")
    pretrain(asked, whole)
    resumed, uninterrupted = (
        load_file(s.model("made") / "weights.safetensors") for s in (store, whole)
    )
    assert equal_tensors(resumed, uninterrupted)


def test_a_checkpoint_made_with_other_settings_is_left_only_if_asked_to(asked, store):
    with pytest.raises(KilledError):
        pretrain(asked, store, killed_after(1))
    other = replace(asked, seed=1, recipe=RECIPE.model_copy(update={"learning_rate": 0.01}))
    differences = (
        r"unfinished training with other settings \(seed 0, not 1; learning_rate 0.001, not 0.01\)"
    )
    for resume in (False, True):
        with pytest.raises(FseftError, match=differences):
            pretrain(
                replace(other, resume=resume),
                store,
                Watcher(note=lambda _: pytest.fail("read the cases")),
            )
    epochs = []
    pretrain(replace(other, overwrite=True), store, noting(epochs))
    assert [epoch.number for epoch in epochs] == [1, 2]


def test_a_checkpoint_of_other_cases_is_left_only_if_asked_to(asked, store):
    with pytest.raises(KilledError):
        pretrain(asked, store, killed_after(1))
    with pytest.raises(FseftError, match=r"other settings \(the cases or their labels; structures"):
        pretrain(replace(asked, folders=asked.folders[:1]), store)


def test_a_checkpoint_is_gone_on_with_at_another_rate_and_on_other_cases_if_asked_to(asked, store):
    with pytest.raises(KilledError):
        pretrain(asked, store, killed_after(1))
    mended = replace(asked, recipe=RECIPE.model_copy(update={"learning_rate": 0.0001}))
    (asked.folders[0] / "labelsTr" / "b.nii.gz").unlink()
    with pytest.raises(
        FseftError, match=r"learning_rate 0.001, not 0.0001\).*Give --resume to go on with them"
    ):
        pretrain(mended, store)
    epochs, told = [], []
    pretrain(replace(mended, resume=True), store, replace(noting(epochs), warn=told.append))
    assert [epoch.number for epoch in epochs] == [2]
    differences = "learning_rate 0.001, not 0.0001; the cases or their labels"
    assert f"goes on with other settings ({differences}): not as without a break" in told


def test_a_checkpoint_for_other_structures_is_not_gone_on_with(asked, store):
    with pytest.raises(KilledError):
        pretrain(asked, store, killed_after(1))
    with pytest.raises(FseftError, match=r"structures kidney_left, tumour, not kidney_left"):
        pretrain(replace(asked, folders=asked.folders[:1], resume=True), store)


def test_a_model_that_has_lost_its_weights_is_made_again(asked, store):
    first, epochs = pretrain(asked, store), []
    (store.model("made") / "weights.safetensors").write_bytes(b"half")
    assert pretrain(asked, store, noting(epochs)).sha256 == first.sha256
    assert len(epochs) == 2


def test_a_licence_is_inherited_and_another_one_doubted(asked, store):
    first = pretrain(asked, store)
    again = pretrain(replace(asked, name="again", init="made", hparams={}, licence=""), store)
    assert (again.licence, again.datasets) == (first.licence, first.datasets)
    told = []
    pretrain(
        replace(asked, name="other", init="made", hparams={}, licence="MIT"),
        store,
        Watcher(warn=told.append),
    )
    assert "--init made: is under CC0; see that it allows --licence MIT" in told


def test_what_a_kill_amid_a_save_left_is_removed(asked, store):
    left = store.model("made") / ".tmp-1-checkpoint-000001.pt"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    pretrain(asked, store)
    assert not left.exists()


def test_weights_may_be_stored_in_half_precision(asked, store):
    pretrain(replace(asked, half=True), store)
    tensors = load_file(store.model("made") / "weights.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}


def test_counts_stay_whole_numbers_in_half_precision(asked, store):
    pretrain(
        replace(
            asked,
            half=True,
            architecture="suprem-unet",
            hparams={"width": 4},
            recipe=RECIPE.model_copy(update={"epochs": 1}),
        ),
        store,
    )
    tensors = load_file(store.model("made") / "weights.safetensors")
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
            "--patch 40,40,40: sides must be divisible by 16,16,16.*Give --patch 48,48,48",
        ),
        ({"patch_size": (16, 32, 32)}, "at least 32,32,32.*Give --patch 32,32,32"),
        ({"resume": True, "overwrite": True}, "--resume and --overwrite exclude each other"),
        ({"name": "phantom-tiny"}, "--out phantom-tiny: is a model of the list"),
        (
            {"hparams": {"affine": "maybe"}},
            r"the network does not accept affine='maybe': .*valid boolean.*default: True",
        ),
        (
            {"hparams": {"channels": 8}},
            "the network does not accept channels=8: .*valid tuple",
        ),
        ({"architecture": "resunett"}, "Did you mean resunet"),
        ({"device": "tpu"}, "there is no such device"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused(changed, message, asked, store):
    with pytest.raises(FseftError, match=message):
        pretrain(replace(asked, **changed), store)
    assert not (store.root / "models").exists()


def test_a_dataset_without_labels_is_refused_by_name(asked, store):
    for path in (asked.folders[1] / "labelsTr").iterdir():
        path.unlink()
    with pytest.raises(FseftError, match=r"second: has 1 channel\(s\) and 0 labelled cases"):
        pretrain(asked, store)


@pytest.mark.parametrize("resume", [False, True])
def test_a_request_that_was_answered_is_not_answered_again(resume, asked, store):
    card, told = pretrain(asked, store), []
    watcher = Watcher(lambda *_: pytest.fail("trained again"), note=told.append)
    assert pretrain(replace(asked, resume=resume), store, watcher) == card
    assert (
        told[-1]
        == "the model 'made' was made with these very settings before: nothing is left to do"
    )


def test_a_model_made_with_other_settings_is_replaced_only_if_asked_to(asked, store):
    first, other = (
        pretrain(asked, store),
        replace(asked, seed=1, hparams={**HPARAMS, "features": 8}),
    )
    unread = Watcher(note=lambda _: pytest.fail("read the cases"))
    with pytest.raises(
        FseftError,
        match=r"other settings \(network .*features=4, not .*=8; seed 0, not 1\).*--overwrite",
    ):
        pretrain(other, store, unread)
    assert verify_model("made", store).sha256 == first.sha256
    assert pretrain(replace(other, overwrite=True), store).sha256 != first.sha256


def test_overwriting_makes_even_the_same_model_anew(asked, store):
    first, epochs = pretrain(asked, store), []
    assert pretrain(replace(asked, overwrite=True), store, noting(epochs)).sha256 == first.sha256
    assert [epoch.number for epoch in epochs] == [1, 2]


def test_a_killed_overwriting_is_gone_on_with_by_the_same_settings(asked, store):
    pretrain(asked, store)
    other, epochs = replace(asked, seed=1), []
    with pytest.raises(KilledError):
        pretrain(replace(other, overwrite=True), store, killed_after(1))
    pretrain(other, store, noting(epochs))
    assert [epoch.number for epoch in epochs] == [2]


def test_two_processes_do_not_train_one_model(asked, store):
    with (
        exclusive_lock(store.model("made")),
        pytest.raises(FseftError, match="models/made: in use by another process"),
    ):
        pretrain(asked, store)


def test_what_is_trained_on_what_is_told_before_it_begins(asked, store):
    told, warned = [], []
    watcher = Watcher(killed_after(0).epoch, warned.append, note=told.append)
    with pytest.raises(KilledError):
        pretrain(replace(asked, validation_share=0.9), store, watcher)
    assert told[2:] == [
        "first: 1 case to learn from, 1 held out",
        "second: 1 case to learn from, 0 held out",
        "2 structures, in so many of these cases: kidney_left 2, tumour 1",
        "intensities: MR z-score per case, CT clip to [-200, 500], scale to [0, 1]; spacing: each dataset's own",
        f"resunet, {told[-1].split()[1]} parameters, on cpu: 2 epochs of 2 steps, each of 2 crops of 32×32×32 voxels",
    ]
    assert warned == [
        "--validation-share 0.9 holds out no case of tumour: the curve does not tell of them"
    ]


def test_the_card_tells_what_the_model_was_made_with(asked, store):
    made = pretrain(replace(asked, minutes=9.0), store).provenance
    assert (made["epochs"], made["steps"]) == (2, 4)
    told = {
        "network": "channels=4,8 features=4",
        "temperature": "balanced",
        "steps_per_epoch": "2",
        "ema_decay": "0.999",
    }
    assert told.items() <= made["settings"].items()
    assert not {"feature_passes", "early_stopping", "features"} & made["settings"].keys()


def test_the_order_of_settings_does_not_matter(asked, store):
    card = pretrain(asked, store)
    turned = replace(asked, hparams=dict(reversed(HPARAMS.items())))
    assert pretrain(turned, store, Watcher(lambda *_: pytest.fail("trained again"))) == card


@pytest.mark.parametrize(
    ("setting", "hint"),
    [
        ("channel=4,8", "Did you mean channels"),
        ("ema_decoy=0.9", "Did you mean ema_decay"),
        ("learning_rate=0.1", "Give --learning-rate instead"),
    ],
)
def test_a_setting_that_nobody_takes_is_told_with_the_nearest(setting, hint, asked, store):
    recipe, hparams = split_settings([setting])
    with pytest.raises(FseftError, match=f"--set {setting.partition('=')[0]}: neither .*{hint}"):
        pretrain(replace(asked, hparams=hparams), store)
    assert not recipe
    assert not store.root.exists()


def test_the_contract_names_the_modalities_that_were_seen(asked, store):
    assert set(pretrain(asked, store).contract.intensity) == {"ct", "mr"}
    assert set(
        pretrain(replace(asked, folders=asked.folders[1:], name="other"), store).contract.intensity
    ) == {"mr"}


def test_ct_of_all_datasets_has_one_intensity_scale_which_the_model_expects(asked, store, tmp_path):
    bright = write_dataset(
        tmp_path / "bright", labels={"liver": 7}, cases=("x",), keep=(7,), seed=9
    )
    asked = replace(asked, folders=(asked.folders[0], bright, asked.folders[1]), window=None)
    sources = assemble(asked, store).training
    ct = [source.crops.intensity for source in sources if source.crops.modality == "ct"]
    contract = pretrain(asked, store).contract
    assert ct == [(contract.intensity["ct"],)] * 2
    assert set(contract.intensity) == {"ct", "mr"}


def test_what_is_declared_but_never_drawn_is_not_annotated(asked, store, tmp_path):
    folder = write_dataset(tmp_path / "third", labels={"Left kidney": 1, "spleen": 3}, keep=(1,))
    assert pretrain(replace(asked, folders=(folder,)), store).classes == ("kidney_left",)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"window": (300, -200)}, "the first value must be the lower one"),
        ({"spacing_mm": (0, 1, 1)}, "must be more than 0"),
        ({"spacing_mm": (90, 90, 90)}, "at --spacing 90,90,90 its largest scan has . voxels"),
        ({"window": (5000, 6000)}, "first: --window=5000,6000 shows nothing of it"),
        (
            {"patch_size": (4096, 4096, 4096)},
            "--patch 4096,4096,4096 with --crops 2 takes about .* GB of memory",
        ),
        (
            {"spacing_mm": (1e-4, 1e-4, 1e-4)},
            "at --spacing 0.0001,0.0001,0.0001 has .* voxels, which takes",
        ),
        ({"patch_size": (30, 32, 32)}, "sides must be divisible by"),
        ({"name": "none"}, "--out none: is no name for a model"),
    ],
)
def test_what_cannot_be_trained_with_is_refused(changed, message, asked, store):
    with pytest.raises(FseftError, match=message):
        pretrain(replace(asked, **changed), store)


def test_a_pair_is_divided_where_another_dataset_has_its_sides(asked, store, tmp_path):
    whole = write_dataset(
        tmp_path / "whole", labels={"kidneys": 1}, cases=("a", "b"), keep=(1,), seed=7
    )
    told = []
    with pytest.warns(UserWarning, match="left and right of 'kidneys' are uncertain"):
        card = pretrain(
            replace(asked, folders=(whole, asked.folders[0])), store, Watcher(note=told.append)
        )
    assert card.classes == ("kidney_left", "kidney_right")
    annotated = {name: found["annotated"] for name, found in card.provenance["datasets"].items()}
    assert annotated == {"whole": ["kidney_left", "kidney_right"], "first": ["kidney_left"]}
    assert told[:2] == [
        "whole: kidneys -> kidney_left + kidney_right",
        "first: Left kidney -> kidney_left",
    ]


def test_a_pair_of_which_nobody_has_the_sides_stays_whole(asked, store, tmp_path):
    whole = write_dataset(tmp_path / "whole", labels={"kidneys": 1}, keep=(1,))
    assert pretrain(replace(asked, folders=(whole,)), store).classes == ("kidney",)


def test_only_the_structures_that_are_wanted_are_learned(asked, store):
    card = pretrain(replace(asked, labels=("lkidney",)), store)
    assert card.classes == ("kidney_left",)


def test_names_that_contradict_each_other_are_refused(asked, store, tmp_path):
    other = write_dataset(tmp_path / "other", labels={"tumor": 7}, keep=(7,))
    with pytest.raises(
        FseftError,
        match="second and other both name a structure 'tumor', which does not say what it is",
    ):
        pretrain(replace(asked, folders=(*asked.folders, other)), store)


def curve(store):
    lines = (store.model("made") / "curve.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_cases_that_are_held_out_give_a_curve_for_each_class(asked, store):
    told = []
    asked = replace(asked, validation_share=0.9)
    card = pretrain(asked, store, Watcher(lambda _, dice: told.append(dice)))
    assert card.provenance["datasets"]["first"] == {
        "cases": 1,
        "held_out": 1,
        "annotated": ["kidney_left"],
    }
    assert card.provenance["datasets"]["second"]["held_out"] == 0  # its only case
    assert [line["epoch"] for line in curve(store)] == [1, 2]
    assert [line["dice"] for line in curve(store)] == told
    assert all(set(dice) == {"kidney_left"} and 0 <= dice["kidney_left"] <= 1 for dice in told)


def test_the_curve_of_a_resumed_run_has_each_epoch_once(asked, store):
    asked = replace(asked, validation_share=0.9)
    with pytest.raises(KilledError):
        pretrain(asked, store, killed_after(1))
    pretrain(asked, store)
    assert [line["epoch"] for line in curve(store)] == [1, 2]


def test_only_the_classes_asked_for_are_learned(asked, store):
    card = pretrain(replace(asked, folders=asked.folders[1:], labels=("Tumour",)), store)
    assert card.classes == ("tumour",)


def test_what_the_network_cannot_be_is_told_before_any_case_is_read(asked, store):
    for changed in ({"hparams": {"channel": [4, 8]}}, {"init": "nothing"}):
        with pytest.raises(FseftError):
            pretrain(replace(asked, **changed), store)
    assert not store.root.exists()


def test_what_is_odd_about_a_dataset_and_how_far_its_cases_are_is_told(asked, store, tmp_path):
    folder = write_dataset(
        tmp_path / "third", labels={"Left kidney": 1, "spleen": 3}, keep=(1,), cases=("x", "y")
    )
    told, done = [], []

    @contextmanager
    def progress(total, what):
        done.append((total, what))
        yield lambda case: done.append(case)

    assemble(replace(asked, folders=(folder,)), store, Watcher(warn=told.append, progress=progress))
    assert told == ["third: 1 declared structure absent from all cases (spleen): cannot be learned"]
    assert done == [(2, "measure third"), "x", "y", (2, "preprocess third"), "x", "y"]


def test_a_share_that_holds_out_nothing_is_told(asked, store):
    told = []
    pretrain(replace(asked, validation_share=0.001), store, Watcher(warn=told.append))
    assert told == [
        "--validation-share 0.001 holds out no case of so few: the curve tells the loss alone; give a larger share"
    ]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": ("tumour",)}, "first: annotates none of tumour"),
        (
            {"labels": ("tumours",)},
            "--labels tumours: no dataset has this structure. Did you mean tumour",
        ),
        ({"init": "nothing"}, "--init nothing: is neither a file nor a model"),
        (
            {"architecture": "swinunetr", "patch_size": (64,) * 3, "hparams": {"depth": 2}},
            "--set depth: neither .*Did you mean depths",
        ),
        (
            {"architecture": "swinunetr", "patch_size": (64,) * 3, "hparams": {"feature_size": 13}},
            "does not accept feature_size=13: .*multiple of 12",
        ),
        ({"hparams": {"channels": [0, 8]}}, "resunet .*channels=0,8"),
        ({"resume": True}, "there is no checkpoint to go on with"),
        ({"absent_means": ("second=perhaps",)}, "there is no 'perhaps'"),
        ({"temperature": -1.0}, "--temperature -1: must be more than 0"),
    ],
)
def test_what_makes_no_sense_is_told_before_training(changed, message, asked, store):
    with pytest.raises(FseftError, match=message):
        pretrain(replace(asked, **changed), store)
    assert store.models() == []


def annotated_in(monkeypatch):
    """The masks of all crops that are trained on."""
    seen = []
    losses = step.masked_losses
    monkeypatch.setattr(
        step,
        "masked_losses",
        lambda x, y, mask, loss: seen.extend(map(tuple, mask.tolist())) or losses(x, y, mask, loss),
    )
    return seen


def test_without_masking_everything_counts_everywhere(asked, store, monkeypatch):
    seen = annotated_in(monkeypatch)
    pretrain(replace(asked, masking="none"), store)
    assert set(seen) == {(1, 1)}


def test_where_absent_means_not_drawn_a_case_counts_for_what_it_has(
    asked, store, monkeypatch, tmp_path
):
    folder = write_dataset(tmp_path / "third", cases=("x", "y"), seed=9)
    path = folder / "labelsTr" / "y.nii.gz"
    labels = read_labels(path)
    write_labels(path, labels.array[0] * (labels.array[0] == 1), labels.geometry)
    longer = replace(asked, folders=(folder,), steps_per_epoch=8)
    for rules, masks in (((), {(1, 1)}), (("third=not-drawn",), {(1, 1), (1, 0)})):
        seen = annotated_in(monkeypatch)
        pretrain(replace(longer, absent_means=rules, overwrite=True), store)
        assert set(seen) == masks


def test_a_label_file_without_any_structure_tells_what_is_background(asked, store):
    path = asked.folders[0] / "labelsTr" / "b.nii.gz"
    labels = read_labels(path)
    write_labels(path, 0 * labels.array[0], labels.geometry)
    (first, _) = assemble(asked, store).training
    assert [(case.name, case.drawn, case.annotated) for case in first.cases] == [
        ("case a of first", (1,), (1,)),
        ("case b of first", (), (1,)),
    ]


def test_the_same_volume_in_two_datasets_counts_once_and_is_told(asked, store):
    first, second = asked.folders
    image = read_volume(first / "imagesTr" / "a_0000.nii.gz")
    turned = reorient(image.array.astype(np.float32), image.geometry, "LPS")
    write_volume(second / "imagesTr" / "z_0000.nii.gz", *turned)  # another file, the same scan
    shutil.copy(first / "labelsTr" / "a.nii.gz", second / "labelsTr" / "z.nii.gz")
    told = []
    card = pretrain(asked, store, Watcher(warn=told.append))
    assert told == [
        "case z of second is the same volume as a of first: counted once, with the labels of first"
    ]
    assert card.provenance["datasets"]["second"]["cases"] == 1


def test_a_full_disk_keeps_the_last_good_checkpoint(asked, store, monkeypatch):
    asked = replace(asked, recipe=RECIPE.model_copy(update={"epochs": 3}))
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
            pretrain(asked, store)
    monkeypatch.undo()
    assert [path.name for path in store.model("made").glob("*.pt")] == ["checkpoint-000001.pt"]
    epochs = []
    pretrain(asked, store, noting(epochs))
    assert [epoch.number for epoch in epochs] == [2, 3]


def test_a_loss_that_is_no_number_names_the_case_and_keeps_the_last_good_checkpoint(
    asked, store, monkeypatch
):
    losses, steps = step.masked_losses, []

    def broken(*arguments):
        steps.append(1)
        return losses(*arguments) * (float("nan") if len(steps) == 4 else 1)

    monkeypatch.setattr(step, "masked_losses", broken)
    with pytest.raises(
        FseftError,
        match=r"loss is nan at step 3 in case . of (first|second), crop of 32×32×32 voxels",
    ):
        pretrain(asked, store)
    assert [path.name for path in store.model("made").glob("*.pt")] == ["checkpoint-000001.pt"]


def test_want_of_memory_is_told_in_a_line_and_keeps_the_last_good_checkpoint(
    asked, store, monkeypatch
):
    losses, steps = step.masked_losses, []

    def short(*arguments):
        steps.append(1)
        if len(steps) == 4:
            raise MemoryError
        return losses(*arguments)

    monkeypatch.setattr(step, "masked_losses", short)
    with pytest.raises(
        FseftError, match=r"a step of the training does not fit the memory.*smaller --patch"
    ):
        pretrain(asked, store)
    assert [path.name for path in store.model("made").glob("*.pt")] == ["checkpoint-000001.pt"]


def test_as_many_checkpoints_stay_as_are_asked_for(asked, store):
    asked = replace(asked, keep=2, recipe=RECIPE.model_copy(update={"epochs": 4}))
    with pytest.raises(KilledError):
        pretrain(asked, store, killed_after(3))
    names = sorted(path.name for path in store.model("made").glob("*.pt"))
    assert names == ["checkpoint-000002.pt", "checkpoint-000003.pt"]


def test_a_model_of_the_list_is_gone_on_with_row_by_row(asked, store):
    before = pretrain(asked, store)
    reports = []
    no_steps = RECIPE.model_copy(update={"epochs": 1, "learning_rate": 1e-12, "weight_decay": 0.0})
    last = replace(
        asked, name="next", folders=asked.folders[1:], labels=("tumour",), hparams={}, init="made"
    )
    card = pretrain(replace(last, recipe=no_steps), store, Watcher(loaded=reports.append))
    old, new = (load_file(store.model(name) / "weights.safetensors") for name in ("made", "next"))
    assert card.hparams == before.hparams
    torch.testing.assert_close(new["head.weight"][0], old["head.weight"][1])
    for name in old.keys() - {"head.weight", "head.bias"}:
        torch.testing.assert_close(new[name], old[name])
    assert card.provenance["init"] == {"from": "made", "sha256": before.sha256}
    assert card.provenance["load_report"] == reports[0].model_dump(mode="json")
    head = {name: tensor.numel() for name, tensor in old.items() if name.startswith("head.")}
    assert reports[0].parameters == before.parameters - sum(head.values())
    assert reports[0].describe()[1:] == ["head rows copied from the model: tumour"]


def test_weights_that_expect_other_images_are_told(asked, store):
    contract = Contract(
        orientation="SPL",
        spacing_mm=(3, 3, 5),
        intensity={"ct": Intensity(scheme="window", low=0, high=9)},
    )
    write_model(store, "found", contract=contract)
    warned = []
    pretrain(replace(asked, hparams={}, init="found"), store, Watcher(warn=warned.append))
    assert warned[0] == (
        "--init found: its weights expect axes SPL, not RAS, which nothing here can change; a spacing of 3,3,5 mm, not "
        "each dataset's own (--spacing 3,3,5 gives it); CT clip to [0, 9], scale to [0, 1], not clip to [-200, 500], "
        "scale to [0, 1] (--window=0,9 gives it)"
    )


def test_a_head_that_texts_drive_is_left_behind(asked, store):
    hparams = {"width": 4, "text_classes": 5}
    write_model(store, "universal", architecture="suprem-unet", hparams=hparams, scope="network")
    card = pretrain(replace(asked, hparams={}, init="universal"), store)
    assert card.hparams == {"width": 4}
    stored = load_file(store.model("made") / "weights.safetensors")
    assert not [name for name in stored if "text" in name]


def test_a_plan_of_the_user_stays_as_it_is(asked, store):
    folder = asked.folders[0]
    api.plan(folder, "none", device="cpu", memory_bytes=10**9, workspace=store)
    before = store.plan(folder.name, "none").read_bytes()
    assemble(asked, store)
    assert store.plan(folder.name, "none").read_bytes() == before


def test_a_structure_that_was_looked_for_and_never_found_counts_as_background(
    asked, store, tmp_path
):
    labels = {"kidney (L)": 1, "liver tumour": 7}
    normals = write_dataset(tmp_path / "normals", labels=labels, cases=("a",), keep=(1,), seed=7)
    liver = write_dataset(
        tmp_path / "tumours", labels={"liver tumour": 7}, cases=("b",), keep=(7,), seed=8
    )
    (normals / "annotated.json").write_text(json.dumps({"a": ["kidney (L)", "liver tumour"]}))
    assembly = assemble(replace(asked, folders=(normals, liver)), store)
    assert assembly.classes == ("kidney_left", "liver_tumor")
    annotated = {
        source.name: [case.annotated for case in source.cases] for source in assembly.training
    }
    assert annotated == {"normals": [(1, 2)], "tumours": [(2,)]}


def test_a_side_that_nobody_asked_for_is_not_learned(asked, store, tmp_path):
    whole = write_dataset(
        tmp_path / "whole", labels={"kidneys": 1}, cases=("a", "b"), keep=(1,), seed=7
    )
    with pytest.warns(UserWarning, match="left and right of 'kidneys' are uncertain"):
        assembly = assemble(replace(asked, folders=(whole,), labels=("kidney_left",)), store)
    assert assembly.classes == ("kidney_left",)


def test_a_side_that_no_voxel_shows_is_not_drawn(asked, store, tmp_path):
    one_sided = write_dataset(
        tmp_path / "whole", labels={"kidneys": 1}, cases=("a", "b"), keep=(1,), seed=7
    )
    with pytest.warns(UserWarning, match="left and right of 'kidneys' are uncertain"):
        assembly = assemble(replace(asked, folders=(one_sided, asked.folders[0])), store)
    for source in assembly.training:
        for case in source.cases:
            found = {
                source.crops.classes[value]
                for value in case.cached.classes
                if value in source.crops.classes
            }
            assert set(case.drawn) == found


def test_a_file_with_an_encoder_alone_starts_what_it_holds(asked, store, tmp_path):
    pretrain(asked, store)
    tensors = load_file(store.model("made") / "weights.safetensors")
    encoder = {
        f"module.{name}": tensor
        for name, tensor in tensors.items()
        if name.startswith("body.model.0")
    }
    torch.save({"state_dict": encoder, "epoch": 3}, tmp_path / "encoder.pt")
    card = pretrain(replace(asked, name="next", init=str(tmp_path / "encoder.pt")), store)
    report = card.provenance["load_report"]
    assert report["loaded"] == len(encoder)
    assert report["random"]
    torch.save({"state_dict": {"other.weight": torch.ones(2)}}, tmp_path / "other.pt")
    with pytest.raises(FseftError, match=r"other.pt: holds nothing that fits the network resunet"):
        pretrain(replace(asked, name="next", init=str(tmp_path / "other.pt")), store)
    with pytest.raises(FseftError, match="--init made: is of the architecture resunet, not unet"):
        pretrain(replace(asked, name="next", init="made", architecture="unet"), store)


@pytest.mark.parametrize("option", [{"recompute": True}, {"workers": 2}])
def test_memory_and_processes_change_no_result(option, asked, store, tmp_path):
    plain = pretrain(asked, store)
    assert pretrain(replace(asked, **option), Workspace(tmp_path / "other")).sha256 == plain.sha256


def test_phantoms_become_a_model_that_is_adapted_predicts_and_is_scored(store, tmp_path):
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
        recipe=RECIPE,
        steps_per_epoch=4,
        window=(-200, 300),
    )
    card = pretrain(request, store)
    assert card.classes == ("heart", "liver", "lung_left", "lung_right")
    settings = ("epochs=2", "crops_per_step=1", "early_stopping=false")
    adapted = adapt_request(folders[1], "made", "linear-probe", store, k=2, settings=settings)
    adapter = adapt(adapted, store).adapter
    out = tmp_path / "out"
    assert predict(
        PredictRequest((folders[1] / "imagesTs",), out, (adapter,)), store
    ).segmented == ["case_003"]
    scores = evaluate(match_files(out, folders[1] / "labelsTs"), workers=1)
    assert set(scores.classes) == {"liver", "heart"}
    assert 0 <= scores.mean["dice"] <= 1
