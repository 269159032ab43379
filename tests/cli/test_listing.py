"""What the program lists and shows of its components and models."""

from __future__ import annotations

import json

from fseft.pretraining.configure import TRAINING_KEYS
from fseft.version import __version__


def test_the_version_is_printed(fseft):
    assert fseft("--version").out == f"fseft {__version__}\n"


def test_a_method_shows_its_configuration(fseft):
    shown = fseft("show", "method", "lora").out
    assert "rank" in shown
    assert "whole number" in shown
    assert "uniform_learning_rate=true" in shown  # of the preset
    schema = json.loads(fseft("show", "method", "lora", "--json").out)["config_schema"]
    assert schema["properties"]["rank"]["type"] == "integer"


def test_all_settings_of_a_pre_training_are_in_its_help(fseft):
    help_text = fseft("pretrain", "--help").out
    assert all(setting in help_text for setting in TRAINING_KEYS)


def test_models_of_the_workspace_are_listed(fseft, tmp_path):
    folder = tmp_path / "work" / "models" / "mine"
    folder.mkdir(parents=True)
    card = {
        "name": "mine",
        "architecture": "resunet",
        "classes": ["liver", "spleen"],
        "licence": "CC-BY-4.0",
    }
    (folder / "model.json").write_text(json.dumps(card))
    table = fseft("models", "--workspace", "work").out
    row = next(line for line in table.splitlines() if "mine" in line)
    assert row.split() == ["mine", "2", "CC-BY-4.0", "-"]
    shown = json.loads(fseft("show", "model", "mine", "--workspace", "work", "--json").out)
    assert shown["classes"] == ["liver", "spleen"]
    assert "1:liver, 2:spleen" in fseft("show", "model", "mine", "--workspace", "work").out
    listed = json.loads(fseft("models", "--workspace", "work", "--json").out)
    assert "mine" in [entry["name"] for entry in listed]
