"""The model and the number of cases that are taken where the user sets none."""

from __future__ import annotations

import pytest

from fseft import api
from fseft.errors import FseftError
from fseft.planning import recommendation
from fseft.planning.fingerprinting import fingerprint_dataset
from fseft.planning.recommendation import recommend_k, recommend_model
from tests.sample_data import write_dataset


@pytest.fixture
def measured(blobs, workspace):
    return fingerprint_dataset(api.read_dataset(blobs), workspace)


def test_a_model_of_the_user_comes_before_the_embedded_one(measured, workspace):
    model, decision = recommend_model(measured, workspace, device="cpu")
    assert (model.name, decision.value) == ("tiny", "tiny")
    assert "2 installed models" in decision.reason


def test_without_other_models_the_embedded_one_is_taken(measured, workspace, monkeypatch):
    monkeypatch.setattr(recommendation, "model_names", lambda _: ["none", "phantom-tiny"])
    model, decision = recommend_model(measured, workspace, device="cpu")
    assert model.name == "phantom-tiny"
    assert "trained on synthetic scans" in decision.reason


def test_a_model_of_another_modality_is_not_taken(tmp_path, workspace):
    write_dataset(tmp_path / "mr", channel="MR")
    measured = fingerprint_dataset(api.read_dataset(tmp_path / "mr"), workspace)
    assert recommend_model(measured, workspace, device="cpu")[0].name == "phantom-tiny"


def test_a_model_that_is_too_large_for_a_cpu_is_not_taken(measured, workspace, monkeypatch):
    monkeypatch.setattr(recommendation, "CPU_PARAMETERS", 10)
    with pytest.raises(FseftError, match="no installed model takes CT images of 1 channel"):
        recommend_model(measured, workspace, device="cpu")


def test_all_labelled_cases_are_taken(measured):
    labelled = [case.name for case in measured.cases if case.volumes_mm3]
    assert recommend_k(measured)[0] == len(labelled)
    assert recommend_k(measured, labelled[:1])[0] == 1


def test_a_dataset_alone_is_enough(blobs, workspace):
    adapter = api.adapt(blobs, workspace=workspace, device="cpu", epochs=1, crops_per_step=1)
    run = adapter.run
    assert run.model == "tiny"
    assert {decision.name for decision in run.decisions} == {"model", "k"}
    assert adapter.path.parent.name == f"auto-k{run.k}-s0"
