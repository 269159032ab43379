"""Training progress: a bar with loss and remaining time on a terminal, else a line now and then."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fseft.cli.console import duration, err, is_quiet, note
from fseft.escaping import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fseft.learn.training.progress import Epoch

SECONDS_BETWEEN_LINES = 20.0


@contextmanager
def training_progress(
    description: str, minutes: float | None = None, bound: str = "at most"
) -> Iterator[Callable[[Epoch], None]]:
    """Shows the progress of a training on stderr.

    Args:
        description: Name of the training.
        minutes: Training time budget, if any.
        bound: Qualifier of the remaining time.

    Yields:
        A function to call after each step.
    """
    if is_quiet():
        yield lambda _: None
        return
    with _bar(description) if err.is_terminal else _lines(description, minutes, bound) as on_step:
        yield on_step


def validation_lines() -> Callable[[Epoch, Mapping[str, float]], None]:
    """Returns a function that prints the Dice of a validation, now and then and at the end."""
    last = -math.inf

    def on_validation_end(epoch: Epoch, dice: Mapping[str, float]) -> None:
        nonlocal last
        due = time.monotonic() - last >= SECONDS_BETWEEN_LINES
        if dice and (due or epoch.progress == 1):
            last = time.monotonic()
            mean = sum(dice.values()) / len(dice)
            scores = ", ".join(f"{name} {value:.3f}" for name, value in dice.items())
            note(f"validation, epoch {epoch.number}: mean Dice {mean:.3f} ({scores})")

    return on_validation_end


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
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("epoch {task.fields[epoch]}  {task.fields[state]}", markup=False),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=err) as bar:
        task = bar.add_task(printable(description), total=1.0, epoch=0, state="")
        yield lambda epoch: bar.update(
            task, completed=epoch.progress, epoch=epoch.number, state=_state(epoch)
        )
        bar.update(task, completed=1.0)  # early stopping or a time budget may have ended it


@contextmanager
def _lines(
    description: str, minutes: float | None, bound: str
) -> Iterator[Callable[[Epoch], None]]:
    """A line after the first step, then now and then, with the extrapolated remaining time."""
    last, first = -math.inf, None

    def on_step(epoch: Epoch) -> None:
        nonlocal last, first
        first = first or epoch
        if time.monotonic() - last < SECONDS_BETWEEN_LINES:
            return
        last = time.monotonic()
        state = f"epoch {epoch.number} ({epoch.progress:.0%}), {_state(epoch)}"
        remaining = _remaining_seconds(first, epoch, minutes)
        suffix = f", {bound} {duration(remaining)} left" if math.isfinite(remaining) else ""
        note(f"{description}: {state}{suffix}")

    yield on_step


def _state(epoch: Epoch) -> str:
    """The loss, and on crops the mean Dice and the structure with the lowest."""
    text = f"loss {epoch.loss:.4f}"
    if epoch.dice:
        text += f", Dice {sum(epoch.dice.values()) / len(epoch.dice):.2f}"
    if len(epoch.dice) > 1:
        lowest, dice = min(epoch.dice.items(), key=lambda item: item[1])
        text += f", lowest {printable(lowest)} {dice:.2f}"
    return text


def _remaining_seconds(first: Epoch, epoch: Epoch, minutes: float | None) -> float:
    """Seconds to the end of the training or of its budget; infinite if neither is known."""
    remaining = math.inf if minutes is None else 60 * minutes - epoch.seconds
    if epoch.progress > first.progress:
        pace = (epoch.seconds - first.seconds) / (epoch.progress - first.progress)
        remaining = min(remaining, pace * (1 - epoch.progress))
    return max(remaining, 0)
