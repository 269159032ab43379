"""How training looks while it goes on: a bar with loss and time left, or a line now and then."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fseft.cli.console import duration, err, note

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fseft.learn.training.progress import Epoch

SECONDS_BETWEEN_LINES = 20.0


@contextmanager
def training_progress(
    description: str, minutes: float | None = None, left: str = "at most"
) -> Iterator[Callable[[Epoch], None]]:
    """Give a function to call after each step; `minutes` is the time budget, if there is one."""
    with _bar(description) if err.is_terminal else _lines(description, minutes, left) as on_step:
        yield on_step


def validation_lines() -> Callable[[Epoch, Mapping[str, float]], None]:
    """A function to call with what the validation gives after an epoch: a line now and then, and at the end."""
    last = -math.inf

    def on_validated(epoch: Epoch, dice: Mapping[str, float]) -> None:
        nonlocal last
        if dice and (epoch.progress == 1 or time.monotonic() - last >= SECONDS_BETWEEN_LINES):
            last = time.monotonic()
            each = ", ".join(f"{name} {value:.3f}" for name, value in dice.items())
            note(
                f"validation, epoch {epoch.number}: mean Dice {sum(dice.values()) / len(dice):.3f} ({each})"
            )

    return on_validated


@contextmanager
def _bar(description: str) -> Iterator[Callable[[Epoch], None]]:
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

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
def _lines(
    description: str, minutes: float | None, bound: str
) -> Iterator[Callable[[Epoch], None]]:
    """A line after the first step, then now and then, with the time left as the steps between tell it."""
    last, first = -math.inf, None

    def on_step(epoch: Epoch) -> None:
        nonlocal last, first
        first = first or epoch
        if time.monotonic() - last < SECONDS_BETWEEN_LINES:
            return
        last = time.monotonic()
        done = f"{description}: epoch {epoch.number} ({epoch.progress:.0%}), loss {epoch.loss:.4f}"
        left = math.inf if minutes is None else 60 * minutes - epoch.seconds
        if epoch.progress > first.progress:
            pace = (epoch.seconds - first.seconds) / (epoch.progress - first.progress)
            left = min(left, pace * (1 - epoch.progress))
        note(f"{done}, {bound} {duration(max(left, 0))} left" if math.isfinite(left) else done)

    yield on_step
