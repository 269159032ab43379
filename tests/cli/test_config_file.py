"""`--config FILE` takes options from a file, and `--save-config FILE` writes them."""

from __future__ import annotations

import pytest

from fseft.schemas import Run
from fseft.workspace import read_document
from tests.cli.conftest import refused


@pytest.fixture
def adapt(fseft, monkeypatch):
    """Calls `fseft adapt`; returns its outcome and the arguments that reached the API."""

    def call(*arguments):
        received = {}

        def record(dataset, model, method, k, **options):
            received.update(options, dataset=str(dataset), model=model, method=method, k=k)
            raise SystemExit(0)

        monkeypatch.setattr("fseft.api.adapt", record)
        return fseft("adapt", *arguments), received

    return call


def test_values_of_the_file_are_defaults_of_the_options(adapt, tmp_path):
    (tmp_path / "c.toml").write_text(
        'dataset = "livers"\nmethod = "lora"\nset = ["epochs=3", "rank=2"]\noverlap = "keep"\n'
        "[adapt]\nfp16 = true\nk = 5\nlabels = ['liver', 'tumour']\n[predict]\nmodel = 'other'\n"
    )
    ended, received = adapt("--config", "c.toml", "--method", "bias")
    assert ended.status == 0, ended.err
    assert (received["dataset"], received["method"], received["k"]) == ("livers", "bias", 5)
    assert received["model"] == "auto"
    assert received["fp16"] is True
    assert received["labels"] == ("liver", "tumour")
    assert received["settings"] == {"epochs": 3, "rank": 2}


def test_saved_options_give_the_same_call_again(adapt):
    options = ("--k", "3", "--set", "epochs=3", "--minutes", "2.5", "--fp16", "--map", 'a"b=\\x')
    _, first = adapt("Lungen Köln", *options, "--save-config", "c.toml")
    _, again = adapt("--config", "c.toml")
    assert first["minutes"] == 2.5
    assert {**first, "callbacks": None} == {**again, "callbacks": None}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("methd = 'lora'", ["no command has the option 'methd'", "Did you mean method?"]),
        ("[adapt]\nmethd = 'x'", ["`fseft adapt` has no option 'methd'"]),
        ("[adpt]\nk = 1", ["'adpt' is not a command", "adapt"]),
        ("k = [1]", ["the value of 'k' is a list"]),
        ("fp16 = 'yes'", ["the value of 'fp16' is not true or false"]),
        ("k = true", ["the value of 'k' is true or false"]),
        ("k = ", ["is not a TOML file"]),
        ("config = 'x'", ["no command has the option 'config'"]),
    ],
)
def test_a_file_that_does_not_fit_is_refused(content, words, fseft, tmp_path):
    (tmp_path / "c.toml").write_text(content)
    refused(fseft("adapt", "livers", "--config", "c.toml"), ["c.toml", *words])


def test_a_file_that_does_not_exist_is_refused(fseft):
    refused(fseft("plan", "livers", "--config", "c.toml"), ["c.toml"])


def test_a_run_is_repeated_from_its_run_json(fseft, blobs, workspace, tmp_path):
    shared = ("--workspace", str(workspace.root), "--device", "cpu", "--model", "tiny")
    method = ("--method", "bias", "--k", "2", "--seed", "1", "--set", "epochs=2")
    first = fseft("adapt", str(blobs), *shared, *method, "--patch", "32,32,32", "-o", "first")
    assert first.status == 0, first.err
    again = fseft(
        *("adapt", str(blobs), *shared, "--config", "first/run.json", "-o", "again", "--json")
    )
    assert again.status == 0, again.err
    runs = [read_document(tmp_path / name / "run.json", Run) for name in ("first", "again")]
    assert runs[0].sources == runs[1].sources
    assert runs[0].recipe == runs[1].recipe
    assert runs[0].final_loss == runs[1].final_loss
    refused(fseft("plan", str(blobs), "--config", "first/run.json"), ["`fseft plan`", "adapt"])
