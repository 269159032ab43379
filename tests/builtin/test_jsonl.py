"""The log of a resumed run equals the log of an uninterrupted one."""

from __future__ import annotations

import json

import pytest

from fseft.builtin.reporters.jsonl import JsonlReporter
from fseft.experiment.reporters import Reporters
from fseft.plugin import ReporterSpec
from fseft.registry import discover


def train(folder, first, stop):
    reporters = Reporters({"jsonl": JsonlReporter(folder)})
    failures = reporters.notify("fseft_run_start", run=None, epoch=first)
    for epoch in range(first, stop):
        metrics = {"loss": 1 / (1 + epoch), "learning_rate": 1e-3, "seconds": 0.5, "more": 1.0}
        failures |= reporters.notify("fseft_epoch_end", run=None, epoch=epoch, metrics=metrics)
    assert failures == {}
    return (folder / "log.jsonl").read_text()


def test_one_line_per_epoch_with_the_stated_keys(tmp_path):
    lines = [json.loads(line) for line in train(tmp_path, 0, 3).splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    assert all(list(line) == ["epoch", "loss", "learning_rate", "seconds"] for line in lines)


def test_the_dice_of_structures_is_one_entry(tmp_path):
    reporters = Reporters({"jsonl": JsonlReporter(tmp_path)})
    metrics = {"loss": 1.0, "learning_rate": 1e-3, "seconds": 0.5, "dice/left kidney": 0.25}
    reporters.notify("fseft_epoch_end", run=None, epoch=1, metrics=metrics)
    assert json.loads((tmp_path / "log.jsonl").read_text())["dice"] == {"left kidney": 0.25}


@pytest.mark.parametrize("half_a_line", ["", '{"epoch": 5, "lo', "\n"])
def test_a_resumed_log_equals_an_uninterrupted_one(tmp_path, half_a_line):
    whole = train(tmp_path / "whole", 0, 8)
    resumed = tmp_path / "resumed"
    train(resumed, 0, 5)
    with (resumed / "log.jsonl").open("a") as log:
        log.write(half_a_line)
    assert train(resumed, 3, 8) == whole


def test_a_new_run_in_an_old_folder_starts_a_new_log(tmp_path):
    train(tmp_path, 0, 5)
    assert len(train(tmp_path, 0, 2).splitlines()) == 2


def test_it_is_offered_by_name(tmp_path):
    assert "jsonl" in [spec.name for spec in discover().specs("reporter", ReporterSpec)]
    assert isinstance(discover().create("reporter", "jsonl", tmp_path), JsonlReporter)
