"""With `--json`, a failure is a JSON document on stdout too."""

from __future__ import annotations

import json

import pytest

from tests.sample_data import write_dataset


@pytest.fixture
def livers(tmp_path):
    return write_dataset(tmp_path / "livers")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("plan nowhere --model none", "nowhere: does not exist"),
        ("adapt livers --model none --method lara --k 1", "unknown method 'lara'"),
        ("predict livers -o out --adapter nowhere", "the adapter does not exist"),
        ("evaluate livers nowhere", "nowhere: does not exist"),
        ("benchmark livers --model tinny --method lora -o bench", "unknown model 'tinny'"),
        ("pretrain livers --name next --init nowhere", "neither a file nor a model"),
        ("models show nowhere", "unknown model 'nowhere'"),
        ("show metric dise", "unknown metric 'dise'. Did you mean dice?"),
        ("plan livers", "Missing option"),
        ("adapt livers --kk 1", "No such option"),
    ],
)
def test_an_error_is_a_document(command, message, fseft, livers):
    ended = fseft(*command.split(), "--json")
    error = json.loads(ended.out)["error"]
    assert ended.status == error["exit_code"] == 2
    assert message in error["message"]
    assert ended.lines[-1] == f"error: {error['message']}"


def test_the_parts_of_an_error_have_keys(fseft):
    error = json.loads(fseft("plan", "nowhere", "--model", "none", "--json").out)["error"]
    assert (error["file"], error["case"], error["cause"]) == ("nowhere", None, "does not exist")
    assert error["hint"]


def test_an_unexpected_exception_is_a_document_with_status_1(fseft, monkeypatch):
    def fail(*_):
        raise KeyError("layer")

    monkeypatch.setattr("fseft.api.list_models", fail)
    ended = fseft("models", "--json")
    assert json.loads(ended.out) == {"error": {"message": "KeyError: 'layer'", "exit_code": 1}}
    assert ended.status == 1


def test_without_the_option_nothing_is_on_stdout(fseft):
    assert fseft("plan", "nowhere", "--model", "none").out == ""
