"""`fseft models`: what a person reads, and what is refused in one line with nothing left behind."""

from __future__ import annotations

import argparse
import json
import shlex

import pytest
import torch
from safetensors.torch import save_file

from fseft.plugin import FoundationModelSpec
from fseft.registry import registry
from tests import checkpoint_files
from tests.model_zoo.test_conversion import narrow

from .conftest import refused


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with files of all kinds, entries of small width, and an empty cache."""
    monkeypatch.setenv("FSEFT_MODELS", str(tmp_path / "cache"))
    for spec in registry().specs("model", FoundationModelSpec):
        if spec.checkpoint is not None:
            narrow(monkeypatch, spec)
    for name in ("clipdriven", "selfsup"):
        checkpoint_files.write(name, tmp_path / f"{name}.pt")
    content = torch.load(tmp_path / "clipdriven.pt", weights_only=True)
    whole = (tmp_path / "clipdriven.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[:-20_000])
    torch.save({**content, "args": argparse.Namespace(lr=1)}, tmp_path / "code.pt")
    torch.save({"optimizer": content["optimizer"], "epoch": 3}, tmp_path / "optimizer.pt")
    checkpoint_files.write(
        "clipdriven", tmp_path / "wide.pt", {**checkpoint_files.SWIN, "feature_size": 24}
    )
    save_file({"conv.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    (tmp_path / "folder").mkdir()
    return tmp_path


BAD = [
    (
        "import clipdriven selfsup.pt",
        ["selfsup.pt: is not a checkpoint of 'clipdriven'", "It looks like that of selfsup."],
    ),
    (
        "import btcv selfsup.pt",
        ["selfsup.pt: is not a checkpoint of 'btcv'", "It looks like that of selfsup."],
    ),
    (
        "import suprem_swinunetr clipdriven.pt",
        ["is not a checkpoint of 'suprem_swinunetr'", "like that of clipdriven."],
    ),
    (
        "import clipdriven cut.pt",
        ["cut.pt: cannot be read as a file of weights", "incomplete", "Download it again."],
    ),
    (
        "import clipdriven code.pt",
        ["code.pt: would execute code from argparse.Namespace", "allow-pickle"],
    ),
    (
        "import clipdriven optimizer.pt",
        ["optimizer.pt: contains no weights (but optimizer, epoch)"],
    ),
    (
        "import clipdriven wide.pt",
        ["wide.pt: ", "24×1×2×2×2, the network's is 12×1×2×2×2", "another width"],
    ),
    (
        "import clipdriven other.safetensors",
        ["other.safetensors: is not a checkpoint of 'clipdriven' (1 tensor, first conv."],
    ),
    ("import clipdriven folder", ["folder: is a folder", "Pass the file of weights in it."]),
    ("import clipdriven nowhere.pt", ["nowhere.pt: the file does not exist", "Check the path."]),
    (
        "import clipdrivn clipdriven.pt",
        ["unknown model 'clipdrivn'", "Did you mean clipdriven"],
    ),
    (
        "import phantom-tiny clipdriven.pt",
        ["the package of the model 'phantom-tiny' includes its weights"],
    ),
    ("import clipdriven clipdriven.pt --name none", ["'none' is not a valid name of a model"]),
    (
        "pull clipdriven",
        ["licence CC-BY-NC-ND-4.0", "Read it at https://", "accept-licence"],
    ),
    (
        "pull fseft",
        [
            "'fseft' must be downloaded manually",
            "Download fseft.pth from https://",
            "fseft models import fseft FILE",
        ],
    ),
    (
        "verify clipdriven",
        ["weights of the model 'clipdriven' are missing", "Run `fseft models pull clipdriven`"],
    ),
    ("show clipdrivn", ["unknown model 'clipdrivn'", "Did you mean clipdriven"]),
]


def test_each_bad_call_is_refused_in_one_line_and_leaves_nothing(here, fseft):
    before = sorted(here.rglob("*"))
    for command, words in BAD:
        ended = fseft("models", *shlex.split(command))
        refused(ended, words)
        assert sorted(here.rglob("*")) == before, command


def test_a_model_is_imported_verified_shown_and_listed(here, fseft):
    missing = fseft("models", "show", "clipdriven")
    assert "not downloaded. Run `fseft models pull clipdriven`" in " ".join(missing.out.split())
    imported = fseft("models", "import", "clipdriven", "clipdriven.pt")
    assert imported.status == 0
    for words in (
        "tensors with",
        "parameters loaded",
        "may not be shared",
        "clipdriven is ready, in ",
    ):
        assert words in imported.out
    assert fseft("models", "verify", "clipdriven").out.startswith("clipdriven: weights (sha256 ")
    shown = fseft("models", "show", "clipdriven").out
    for words in (
        "1:Spleen",
        "9:Postcava (inferior_vena_cava)",
        "clip to [-175, 250]",
        "clipdriven.pt",
    ):
        assert words in shown
    listed = {
        card["name"]: card["present"] for card in json.loads(fseft("models", "list", "--json").out)
    }
    assert [name for name, present in listed.items() if present] == ["clipdriven", "phantom-tiny"]


def test_a_damaged_model_is_reported_and_hides_no_other(here, fseft):
    assert fseft("models", "import", "selfsup", "selfsup.pt").status == 0
    (here / "cache" / "fseft" / "selfsup" / "model.json").write_text("{")
    words = ["model.json: is not valid JSON (", "models pull selfsup"]
    refused(fseft("models", "show", "selfsup"), words)
    listed = fseft("models", "list", "--json")
    assert listed.status == 0
    assert "is not valid JSON" in " ".join(listed.err.split())
    assert {"btcv", "phantom-tiny"} <= {card["name"] for card in json.loads(listed.out)}


def test_the_shown_command_finds_a_model_of_the_workspace(here, fseft):
    imported = fseft(
        "models", "import", "selfsup", "selfsup.pt", "--name", "mine", "--workspace", "work"
    )
    assert "`fseft models show mine --workspace work` describes it" in imported.out


def test_former_options_of_import_mean_the_same(here, fseft):
    imported = fseft("models", "import", "selfsup", "selfsup.pt", "--as", "mine", "--trust")
    assert imported.status == 0
    assert "as --allow-pickle permits" in imported.warnings[0]
    assert "mine" in fseft("models").out


def test_json_is_all_that_stdout_holds(here, fseft):
    imported = json.loads(fseft("models", "import", "selfsup", "selfsup.pt", "--json").out)
    assert imported["card"]["name"] == "selfsup"
    assert imported["is_new"]
    verified = json.loads(fseft("models", "verify", "selfsup", "--json").out)
    assert (verified["name"], verified["verified"]) == ("selfsup", True)
    assert verified["load_report"] == imported["load_report"]
