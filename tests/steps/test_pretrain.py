"""Pre-training: one model from datasets that each annotate other structures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fseft.documents import ModelCard, Recipe
from fseft.errors import FseftError
from fseft.steps import pretrain as step
from fseft.steps.adapt import adapt
from fseft.steps.predict import PredictRequest, predict
from fseft.steps.pretrain import PretrainRequest, pretrain
from fseft.store import Store, file_digest, read_document
from fseft.volume.image import read_labels

from .conftest import equal_tensors, write_dataset

RECIPE = Recipe(epochs=2, learning_rate=1e-3, plateau=False, foreground=0.8, crops=2, checkpoint_seconds=0)


class KilledError(Exception):
    """A kill."""


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr(step, "STEPS_PER_EPOCH", 2)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "workspace")


@pytest.fixture
def asked(tmp_path):
    """A CT dataset with a kidney, an MR dataset with a kidney of another spelling and a tumour."""
    first = write_dataset(tmp_path / "first", labels={"Left kidney": 1}, cases=("a", "b"), keep=(1,))
    labels = {"tumour": 7, "kidney (L)": 1}
    second = write_dataset(tmp_path / "second", labels=labels, cases=("c",), channel="MR", seed=5)
    return PretrainRequest(
        (first, second), "made", window=(-200, 500), patch_size=(32, 32, 32), recipe=RECIPE, licence="CC0"
    )


def test_the_model_knows_the_union_of_the_structures(asked, store):
    card = pretrain(asked, store)
    assert card == read_document(store.model("made") / "model.json", ModelCard)
    assert card.classes == ("kidney_left", "tumour")
    assert (card.datasets, card.licence, card.activation) == (("first", "second"), "CC0", "sigmoid")
    assert card.sha256 == file_digest(store.model("made") / "weights.safetensors")
    assert card.provenance["datasets"] == {
        "first": {"cases": 2, "annotated": ["kidney_left"]},
        "second": {"cases": 1, "annotated": ["kidney_left", "tumour"]},
    }
    assert {path.name for path in store.model("made").iterdir()} == {"model.json", "weights.safetensors"}


def test_the_model_can_be_adapted_and_predicts(asked, store, request_for, blobs, tmp_path):
    pretrain(asked, store)
    adapter = adapt(request_for("zero-shot", model="made"), store).adapter
    result = predict(PredictRequest((blobs / "imagesTr",), tmp_path / "out", (adapter,)), store)
    assert result.done == ["a", "b", "c", "d"]
    assert set(np.unique(read_labels(tmp_path / "out" / "a.nii.gz").array)) <= {0, 1, 7}


def test_a_class_counts_only_where_its_dataset_annotates_it(asked, store, monkeypatch):
    seen = []
    loss = step.masked_loss

    def noting(logits, reference, annotated):
        seen.extend(zip(reference, annotated, strict=True))
        return loss(logits, reference, annotated)

    monkeypatch.setattr(step, "masked_loss", noting)
    pretrain(replace(asked, recipe=RECIPE.model_copy(update={"epochs": 6})), store)
    assert {tuple(annotated.tolist()) for _, annotated in seen} == {(1, 0), (1, 1)}
    assert all(not reference[1].any() for reference, annotated in seen if not annotated[1])
    assert any(reference[1].any() for reference, annotated in seen if annotated[1])
    assert any(reference[0].any() for reference, annotated in seen if not annotated[1])


def killed_after(epoch):
    def on_epoch(done):
        if done.number > epoch:
            raise KilledError

    return on_epoch


def test_a_killed_pre_training_goes_on_to_the_very_same_weights(asked, store, tmp_path):
    asked = replace(asked, recipe=RECIPE.model_copy(update={"epochs": 3}))
    with pytest.raises(KilledError):
        pretrain(asked, store, killed_after(1))
    assert store.models() == []
    epochs = []
    pretrain(asked, store, epochs.append)
    assert [epoch.number for epoch in epochs] == [2, 3]
    whole = Store(tmp_path / "other")
    pretrain(asked, whole)
    resumed, uninterrupted = (load_file(s.model("made") / "weights.safetensors") for s in (store, whole))
    assert equal_tensors(resumed, uninterrupted)


def test_a_checkpoint_of_another_request_is_not_gone_on_with(asked, store):
    with pytest.raises(KilledError):
        pretrain(asked, store, killed_after(1))
    epochs = []
    pretrain(replace(asked, folders=asked.folders[:1]), store, epochs.append)
    assert [epoch.number for epoch in epochs] == [1, 2]


def test_weights_may_be_stored_in_half_precision(asked, store):
    pretrain(replace(asked, half=True), store)
    tensors = load_file(store.model("made") / "weights.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}


def test_counts_stay_whole_numbers_in_half_precision(asked, store):
    pretrain(
        replace(asked, half=True, architecture="suprem-unet", recipe=RECIPE.model_copy(update={"epochs": 1})), store
    )
    tensors = load_file(store.model("made") / "weights.safetensors")
    counts = {name: tensor.dtype for name, tensor in tensors.items() if name.endswith("num_batches_tracked")}
    assert set(counts.values()) == {torch.int64}
    assert {tensor.dtype for name, tensor in tensors.items() if name not in counts} == {torch.float16}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"patch_size": (40, 40, 40)}, r"--patch \(40, 40, 40\): sides must be divisible by \(16, 16, 16\)"),
        ({"patch_size": (16, 32, 32)}, r"at least \(32, 32, 32\)"),
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


def test_a_request_that_was_answered_is_not_answered_again(asked, store):
    card = pretrain(asked, store)
    assert pretrain(asked, store, on_epoch=lambda _: pytest.fail("trained again")) == card
    assert pretrain(replace(asked, seed=1), store).sha256 != card.sha256


def test_the_contract_names_the_modalities_that_were_seen(asked, store):
    assert set(pretrain(asked, store).contract.intensity) == {"ct", "mr"}
    assert set(pretrain(replace(asked, folders=asked.folders[1:]), store).contract.intensity) == {"mr"}


def test_what_is_declared_but_never_drawn_is_not_annotated(asked, store, tmp_path):
    folder = write_dataset(tmp_path / "third", labels={"Left kidney": 1, "spleen": 3}, keep=(1,))
    assert pretrain(replace(asked, folders=(folder,)), store).classes == ("kidney_left",)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"window": (300, -200)}, "the first value must be the lower one"),
        ({"spacing_mm": (0, 1, 1)}, "must be more than 0"),
        ({"patch_size": (30, 32, 32)}, "sides must be divisible by"),
        ({"name": "none"}, "--out none: is no name for a model"),
    ],
)
def test_what_cannot_be_trained_with_is_refused(changed, message, asked, store):
    with pytest.raises(FseftError, match=message):
        pretrain(replace(asked, **changed), store)


def test_a_pair_is_divided_where_another_dataset_has_its_sides(asked, store, tmp_path):
    whole = write_dataset(tmp_path / "whole", labels={"kidneys": 1}, cases=("a", "b"), keep=(1,))
    told = []
    with pytest.warns(UserWarning, match="left and right of 'kidneys' are uncertain"):
        card = pretrain(replace(asked, folders=(whole, asked.folders[0])), store, tell=told.append)
    assert card.classes == ("kidney_left", "kidney_right")
    annotated = {name: found["annotated"] for name, found in card.provenance["datasets"].items()}
    assert annotated == {"whole": ["kidney_left", "kidney_right"], "first": ["kidney_left"]}
    assert told == ["whole: kidneys -> kidney_left + kidney_right", "first: Left kidney -> kidney_left"]


def test_a_pair_of_which_nobody_has_the_sides_stays_whole(asked, store, tmp_path):
    whole = write_dataset(tmp_path / "whole", labels={"kidneys": 1}, keep=(1,))
    assert pretrain(replace(asked, folders=(whole,)), store).classes == ("kidney",)


def test_only_the_structures_that_are_wanted_are_learned(asked, store):
    card = pretrain(replace(asked, labels=("lkidney",)), store)
    assert card.classes == ("kidney_left",)


def test_names_that_contradict_each_other_are_refused(asked, store, tmp_path):
    other = write_dataset(tmp_path / "other", labels={"tumor": 7}, keep=(7,))
    with pytest.raises(FseftError, match="second and other both name a structure 'tumor', which does not say of what"):
        pretrain(replace(asked, folders=(*asked.folders, other)), store)
