"""`fseft doctor` says what works, what does not, and what helps."""

from __future__ import annotations

import json

import pytest

from fseft import api
from fseft.diagnostics import checks
from tests.sample_data import write_dataset


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    return {
        check.name: check
        for check in api.check_installation(workspace=tmp_path_factory.mktemp("w"))
    }


def test_a_working_installation_passes_every_check(healthy):
    assert {check.status for check in healthy.values()} <= {"ok", "warning"}
    assert healthy["model phantom-tiny"].detail == "weights and output as expected"
    assert "torch" in healthy["packages"].detail
    assert healthy["plugin builtin"].status == "ok"


@pytest.fixture
def without_network(monkeypatch):
    monkeypatch.setattr(checks, "verify_model", lambda _model: None)


@pytest.mark.usefixtures("without_network")
def test_a_dataset_is_looked_at(fseft, tmp_path):
    folder = write_dataset(tmp_path / "livers")
    (folder / "labelsTr" / "b.nii.gz").unlink()
    ended = fseft("doctor", "livers", "--json")
    found = [check for check in json.loads(ended.out) if check["name"] == "dataset"]
    assert ended.status == 0
    assert [check["status"] for check in found] == ["ok", "warning"]
    assert "4 cases, 3 with a label" in found[0]["detail"]
    assert "1 image without a label (b)" in found[1]["detail"]


@pytest.mark.usefixtures("without_network")
def test_a_failed_check_gives_exit_status_2_and_a_remedy(fseft):
    ended = fseft("doctor", "nowhere", "--json")
    assert ended.status == 2
    (failed,) = [check for check in json.loads(ended.out) if check["status"] == "error"]
    assert failed["detail"] == "nowhere: does not exist."
    assert failed["remedy"] == "Give the folder of a dataset."


@pytest.mark.usefixtures("without_network")
def test_a_damaged_model_is_named_and_does_not_hide_other_checks(fseft, tmp_path):
    card = tmp_path / "models" / "mine" / "model.json"
    card.parent.mkdir(parents=True)
    card.write_text("{")
    ended = fseft("doctor", "--json")
    found = {check["name"]: check for check in json.loads(ended.out)}
    assert ended.status == 2
    assert found["model mine"]["status"] == "error"
    assert "model.json" in found["model mine"]["detail"]
    assert found["models"]["status"] == found["workspace"]["status"] == "ok"


@pytest.mark.usefixtures("without_network")
def test_a_missing_package_is_named(fseft, monkeypatch):
    monkeypatch.setattr(checks, "_PACKAGES", ("torch", "no-such-package"))
    ended = fseft("doctor", "--json")
    (failed,) = [check for check in json.loads(ended.out) if check["status"] == "error"]
    assert failed["remedy"] == "Install no-such-package."


def test_libraries_that_compute_another_output_are_found(fseft, monkeypatch):
    def broken(_model):
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(checks, "verify_model", broken)
    ended = fseft("doctor", "--json")
    (failed,) = [check for check in json.loads(ended.out) if check["status"] == "error"]
    assert failed["name"] == "model phantom-tiny"
    assert "no kernel image" in failed["detail"]
    assert "constraints.txt" in failed["remedy"]
