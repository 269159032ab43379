"""How training looks while it goes on: a bar with loss and time left, or a line now and then."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fseft.cli.console import duration, err, note

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fseft.learn.loop import Epoch

SECONDS_BETWEEN_LINES = 20.0


@contextmanager
def training_progress(
    description: str, minutes: float | None = None, left: str = "at most"
) -> Iterator[Callable[[Epoch], None]]:
    """Give a function to call after each epoch; `minutes` is the time budget, if there is one."""
    with _bar(description) if err.is_terminal else _lines(description, minutes, left) as on_epoch:
        yield on_epoch


@contextmanager
def pretraining_progress(minutes: float | None) -> Iterator[Callable[[Epoch, Mapping[str, float]], None]]:
    """As `training_progress`, and beside it what the validation gives: a line now and then."""
    last = -math.inf
    with training_progress("pre-training", minutes, "about") as on_epoch:

        def on_validated(epoch: Epoch, dice: Mapping[str, float]) -> None:
            nonlocal last
            on_epoch(epoch)
            if dice and (epoch.progress == 1 or time.monotonic() - last >= SECONDS_BETWEEN_LINES):
                last = time.monotonic()
                each = ", ".join(f"{name} {value:.3f}" for name, value in dice.items())
                note(f"validation, epoch {epoch.number}: mean Dice {sum(dice.values()) / len(dice):.3f} ({each})")

        yield on_validated


@contextmanager
def _bar(description: str) -> Iterator[Callable[[Epoch], None]]:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("epoch {task.fields[epoch]}  loss {task.fields[loss]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=err) as bar:
        task = bar.add_task(description, total=1.0, epoch=0, loss="–")
        yield lambda e: bar.update(task, completed=e.progress, epoch=e.number, loss=f"{e.loss:.4f}")


@contextmanager
def _lines(description: str, minutes: float | None, bound: str) -> Iterator[Callable[[Epoch], None]]:
    """The first epoch tells how long the rest may take; then a line now and then."""
    last = -math.inf

    def on_epoch(epoch: Epoch) -> None:
        nonlocal last
        if time.monotonic() - last < SECONDS_BETWEEN_LINES:
            return
        last = time.monotonic()
        left = epoch.seconds * (1 - epoch.progress) / max(epoch.progress, 1e-6)
        if minutes is not None:
            left = min(left, 60 * minutes - epoch.seconds)
        done = f"{description}: epoch {epoch.number} ({epoch.progress:.0%}), loss {epoch.loss:.4f}"
        note(f"{done}, {bound} {duration(max(left, 0))} left")

    yield on_epoch
