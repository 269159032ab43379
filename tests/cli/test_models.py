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
        ["selfsup.pt: is no file of 'clipdriven'", "It looks like that of selfsup."],
    ),
    (
        "import btcv selfsup.pt",
        ["selfsup.pt: is no file of 'btcv'", "It looks like that of selfsup."],
    ),
    (
        "import suprem_swinunetr clipdriven.pt",
        ["is no file of 'suprem_swinunetr'", "like that of clipdriven."],
    ),
    (
        "import clipdriven cut.pt",
        ["cut.pt: is no file of weights that can be read", "cut off", "Get it again."],
    ),
    (
        "import clipdriven code.pt",
        ["code.pt: would run code from argparse.Namespace", "give --trust"],
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
        ["other.safetensors: is no file of 'clipdriven' (1 tensor, first conv."],
    ),
    ("import clipdriven folder", ["folder: is a folder", "Give the file with the weights in it."]),
    ("import clipdriven nowhere.pt", ["nowhere.pt: there is no such file", "Check the path."]),
    (
        "import clipdrivn clipdriven.pt",
        ["unknown model 'clipdrivn'", "Did you mean clipdriven"],
    ),
    ("import phantom-tiny clipdriven.pt", ["the weights of 'phantom-tiny' come with its package"]),
    ("import clipdriven clipdriven.pt --as none", ["--as none: is no name for a model"]),
    (
        "pull clipdriven",
        ["licence CC-BY-NC-ND-4.0", "Read it at https://", "give --accept-licence"],
    ),
    (
        "pull fseft",
        [
            "'fseft' can only be got by hand",
            "Get fseft.pth from https://",
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
    assert "none here. Run `fseft models pull clipdriven`" in " ".join(missing.out.split())
    imported = fseft("models", "import", "clipdriven", "clipdriven.pt")
    assert imported.status == 0
    for words in (
        "tensors with",
        "parameters loaded",
        "may not be shared",
        "clipdriven is ready, in ",
    ):
        assert words in imported.out
    assert fseft("models", "verify", "clipdriven").out.startswith(
        "clipdriven: the weights are those that were"
    )
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


def test_a_damaged_model_is_told_with_its_remedy_and_hides_no_other(here, fseft):
    assert fseft("models", "import", "selfsup", "selfsup.pt").status == 0
    (here / "cache" / "fseft" / "selfsup" / "model.json").write_text("{")
    words = ["model.json: is not a valid model card (Invalid", "models pull selfsup"]
    refused(fseft("models", "show", "selfsup"), words)
    listed = fseft("models", "list", "--json")
    assert listed.status == 0
    assert "is not a valid model card" in " ".join(listed.err.split())
    assert {"btcv", "phantom-tiny"} <= {card["name"] for card in json.loads(listed.out)}


def test_what_is_told_of_a_model_of_a_workspace_finds_it(here, fseft):
    imported = fseft(
        "models", "import", "selfsup", "selfsup.pt", "--as", "mine", "--workspace", "work"
    )
    assert "`fseft models show mine --workspace work` tells" in imported.out
