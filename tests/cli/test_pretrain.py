"""`fseft pretrain`: its options, also in their former spelling, and what it prints."""

from __future__ import annotations

import json
import math

import pytest

from fseft.api import _pretraining
from fseft.pretraining import run
from fseft.schemas import ModelCard

PROVENANCE = {"epochs": 3, "steps": 30}
CARD = ModelCard(name="m", architecture="resunet", classes=("liver",), provenance=PROVENANCE)


@pytest.fixture
def requests(monkeypatch):
    """Requests that the command makes; nothing is trained."""
    captured = []

    def pretrain(request, *_):
        captured.append(request)
        return CARD

    monkeypatch.setattr(run, "pretrain", pretrain)
    monkeypatch.setattr(_pretraining, "as_dataset", lambda folder, **_: folder)
    return captured


def test_former_options_mean_the_same(fseft, requests):
    fseft(
        *("pretrain", "a", "b", "--out", "m", "--trust", "--half", "--absent-means", "a=not-drawn"),
        *("--natural", "--validation-share", "0.2", "--crops", "4", "--set", "clip=2"),
    )
    fseft(
        *("pretrain", "a", "b", "--name", "m", "--allow-pickle", "--fp16"),
        *("--missing-label", "a=unannotated", "--sampling", "natural"),
        *("--validation-fraction", "0.2", "--crops-per-step", "4", "--set", "max_grad_norm=2"),
    )
    former, current = requests
    assert former == current
    assert (current.name, current.fp16, current.allow_pickle) == ("m", True, True)
    assert current.missing_label == {"a": "unannotated"}
    assert current.training.crops_per_step == 4


@pytest.mark.parametrize(
    ("options", "temperature"),
    [
        ([], math.inf),
        (["--sampling", "balanced"], math.inf),
        (["--sampling", "natural"], 1.0),
        (["--sampling", "2.5"], 2.5),
        (["--balanced"], math.inf),
        (["--natural"], 1.0),
        (["--temperature", "2.5"], 2.5),
    ],
)
def test_sampling_is_named_or_a_temperature(options, temperature, fseft, requests):
    fseft("pretrain", "a", "--name", "m", *options)
    assert requests[0].temperature == temperature


def test_former_options_are_not_in_the_help(fseft):
    shown = fseft("pretrain", "--help").out
    for option in ("--out", "--trust", "--half", "--absent-means", "--natural", "--temperature"):
        assert f"{option} " not in shown


def test_the_result_is_shown_with_the_next_command(fseft, requests):
    shown = fseft("pretrain", "a", "--name", "m", "--epochs", "5").out
    assert "model m: 1 structure, 30 steps in 3 epochs of 5: ended by the time budget" in shown
    assert "fseft adapt DATASET --model m" in shown


def test_json_is_all_that_stdout_holds(fseft, requests):
    assert json.loads(fseft("pretrain", "a", "--name", "m", "--json").out)["name"] == "m"
