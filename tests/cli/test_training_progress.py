"""The bar of a training, in a terminal."""

from __future__ import annotations

import io
import re

from rich.console import Console

from fseft.cli import training_progress
from fseft.learn.training.progress import Epoch


def test_the_bar_of_a_training_that_ended_early_is_complete(monkeypatch):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80)
    monkeypatch.setattr(training_progress, "err", console)
    with training_progress.training_progress("lora, k = 5", minutes=1) as on_step:
        on_step(Epoch(number=14, loss=0.25, learning_rate=0.01, progress=0.93, seconds=56))
    assert re.findall(r"\d+%", screen.getvalue())[-1] == "100%"
