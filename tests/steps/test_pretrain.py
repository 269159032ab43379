"""Pre-training: one model from datasets that each annotate other structures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fseft.documents import ModelCard
from fseft.errors import FseftError
from fseft.steps import pretrain as step
from fseft.steps.adapt import adapt
from fseft.steps.importing import verify_model
from fseft.steps.predict import PredictRequest, predict
from fseft.steps.pretrain import Watcher, pretrain
from fseft.steps.pretrain_request import RECIPE as STANDARD
from fseft.steps.pretrain_request import PretrainRequest
from fseft.store import Store, file_digest, read_document
from fseft.volume.image import read_labels

from .conftest import equal_tensors, write_dataset

RECIPE = STANDARD.model_copy(update={"epochs": 2})
HPARAMS = {"channels": [4, 8], "features": 4}


class KilledError(Exception):
    """A kill."""


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
    assert names == {"model.json", "weights.safetensors", "curve.jsonl"}


def test_the_model_can_be_adapted_and_predicts(asked, store, request_for, blobs, tmp_path):
    pretrain(asked, store)
    adapter = adapt(request_for("zero-shot", model="made"), store).adapter
    result = predict(PredictRequest((blobs / "imagesTr",), tmp_path / "out", adapter), store)
    assert result.done == ["a", "b", "c", "d"]
    assert set(np.unique(read_labels(tmp_path / "out" / "a.nii.gz").array)) <= {0, 1, 7}


def test_a_class_counts_only_where_its_dataset_annotates_it(asked, store, monkeypatch):
    seen = []
    losses = step.masked_losses

    def noting(logits, reference, annotated):
        seen.extend(zip(reference, annotated, strict=True))
        return losses(logits, reference, annotated)

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
    epochs = []
    pretrain(asked, store, noting(epochs))
    assert [epoch.number for epoch in epochs] == [2, 3]
    whole = Store(tmp_path / "other")
    pretrain(asked, whole)
    resumed, uninterrupted = (load_file(s.model("made") / "weights.safetensors") for s in (store, whole))
    assert equal_tensors(resumed, uninterrupted)


def test_a_checkpoint_of_another_request_is_not_gone_on_with(asked, store):
    with pytest.raises(KilledError):
        pretrain(asked, store, killed_after(1))
    epochs = []
    pretrain(replace(asked, folders=asked.folders[:1]), store, noting(epochs))
    assert [epoch.number for epoch in epochs] == [1, 2]


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
    assert pretrain(asked, store, Watcher(lambda *_: pytest.fail("trained again"))) == card
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
