"""The shell completes names of methods, models, structures and adapters."""

from __future__ import annotations

import pytest


@pytest.fixture
def complete(fseft, monkeypatch):
    """Return the completions that bash receives for a line."""

    def words(line):
        monkeypatch.setenv("_FSEFT_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
        return fseft().out.split()

    return words


def test_methods_are_completed(complete):
    assert complete("fseft adapt data --method lo") == ["lora"]


def test_the_last_of_several_methods_is_completed(complete):
    assert complete("fseft benchmark data --method full,lo") == ["full,lora"]


def test_models_are_completed(complete):
    assert complete("fseft plan data --model phantom") == ["phantom-tiny"]
    assert complete("fseft models show phantom") == ["phantom-tiny"]


def test_components_of_the_kind_before_are_completed(complete):
    assert complete("fseft show metric hd") == ["hd95"]


def test_structures_of_the_dataset_are_completed(complete, tmp_path):
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    (tmp_path / "data" / "imagesTr" / "a_0000.nii.gz").touch()
    labels = '{"background": 0, "liver": 1, "spleen": 2}'
    declaration = (
        f'{{"channel_names": {{"0": "CT"}}, "labels": {labels}, "file_ending": ".nii.gz"}}'
    )
    (tmp_path / "data" / "dataset.json").write_text(declaration)
    assert complete("fseft adapt data --labels sp") == ["spleen"]
    assert complete("fseft adapt missing --labels sp") == []


def test_runs_with_an_adapter_are_completed(complete, tmp_path):
    run = tmp_path / "runs" / "livers" / "m" / "lora-k5-s0"
    run.mkdir(parents=True)
    (run / "adapter.safetensors").touch()
    assert complete("fseft predict scans --adapter runs/li") == ["runs/livers/m/lora-k5-s0"]
