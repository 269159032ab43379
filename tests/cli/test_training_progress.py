"""The progress of a training, in a terminal and in a log, with the remaining time."""

from __future__ import annotations

import io
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from fseft.cli import training_progress
from fseft.cli.remaining_time import RemainingTime
from fseft.learn.training.progress import Epoch


def test_the_bar_of_a_training_that_ended_early_is_complete(monkeypatch):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80)
    monkeypatch.setattr(training_progress, "err", console)
    with training_progress.training_progress("lora, k = 5") as on_step:
        on_step(Epoch(number=14, loss=0.25, learning_rate=0.01, progress=0.93, seconds=56))
    assert re.findall(r"\d+%", screen.getvalue())[-1] == "100%"


def step(seconds, progress, stage=""):
    return Epoch(
        number=1, loss=0.5, learning_rate=0.01, seconds=seconds, progress=progress, stage=stage
    )


def test_a_log_names_the_stage_and_the_remaining_time_of_each(monkeypatch, capsys):
    clock = iter(range(0, 1000, 30))
    monkeypatch.setattr(training_progress.time, "monotonic", lambda: float(next(clock)))
    with training_progress.training_progress("training") as on_step:
        on_step(step(1, 0.1, "trial 1 of 8, lora"))
        on_step(step(11, 0.6, "trial 1 of 8, lora"))
        on_step(step(1, 0.1, "trial 2 of 8, full"))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "trial 1 of 8, lora: epoch 1 (10%), loss 0.5000",
        "trial 1 of 8, lora: epoch 1 (60%), loss 0.5000, about 8 s left",
        "trial 2 of 8, full: epoch 1 (10%), loss 0.5000",
    ]


@given(st.lists(st.floats(0.5, 20), min_size=4, max_size=30))
def test_the_remaining_time_is_within_the_slowest_and_the_fastest_step(seconds):
    job, elapsed = RemainingTime(), 0.0
    job.update(0, 0)
    for number, duration in enumerate(seconds, start=1):
        elapsed += duration
        left = job.update(elapsed, number / len(seconds))
        steps = len(seconds) - number
        if elapsed < 3:
            assert left == math.inf
        else:
            assert min(seconds) * steps - 1e-6 <= left <= max(seconds) * steps + 1e-6


def test_a_machine_that_becomes_slower_is_noticed_within_as_long_again():
    job = RemainingTime()
    for second in range(11):
        job.update(second, second / 100)  # a step a second
    for step_number in range(11, 21):
        left = job.update(10 + 5 * (step_number - 10), step_number / 100)  # five seconds a step
    assert left == pytest.approx(5 * 80, rel=0.01)


def test_the_remaining_time_of_the_next_seed_starts_again():
    job = RemainingTime()
    for _ in range(2):
        left = [job.update(second, second / 100) for second in range(11)]
        assert left[-1] == pytest.approx(90)
