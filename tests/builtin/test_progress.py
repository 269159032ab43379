"""The curves of a run are drawn from its log, at the end at the latest."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from fseft.builtin.reporters.jsonl import JsonlReporter
from fseft.builtin.reporters.progress import ProgressReporter
from fseft.experiment.reporters import Reporters


def picture_of(folder, losses, dice):
    reporters = Reporters({"log": JsonlReporter(folder), "curves": ProgressReporter(folder)})
    for epoch, loss in enumerate(losses, start=1):
        metrics = {"loss": loss, "learning_rate": 1e-3, "seconds": epoch}
        metrics |= {f"dice/{name}": values[epoch - 1] for name, values in dice.items()}
        assert reporters.notify("fseft_epoch_end", run=None, epoch=epoch, metrics=metrics) == {}
    assert reporters.notify("fseft_run_end", run=None, outcome="finished") == {}
    return np.asarray(Image.open(folder / "progress.png"))


def test_each_structure_has_a_curve(tmp_path):
    losses = [1.0, 0.5, 0.4]
    one = picture_of(tmp_path / "one", losses, {"liver": [0, 0.4, 0.8]})
    two = picture_of(tmp_path / "two", losses, {"liver": [0, 0.4, 0.8], "肝臓": [0, 0.1, 0.2]})
    assert one.shape == two.shape
    assert (one != two).any()


@pytest.mark.parametrize(
    ("losses", "dice"),
    [
        ([0.5], {"liver": [0.0]}),
        ([0.5, 0.5], {}),
        ([-2.0, -3.0], {f"structure {i}": [0.1, 0.2] for i in range(30)}),
    ],
)
def test_runs_of_any_length_and_number_of_structures_are_drawn(tmp_path, losses, dice):
    assert picture_of(tmp_path, losses, dice).std() > 0


def test_a_run_without_epochs_has_no_picture(tmp_path):
    reporters = Reporters({"curves": ProgressReporter(tmp_path)})
    assert reporters.notify("fseft_run_end", run=None, outcome="interrupted") == {}
    assert not (tmp_path / "progress.png").exists()
