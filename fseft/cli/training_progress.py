"""Training progress: a bar with loss and remaining time on a terminal, else a line now and then."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fseft.cli.console import duration, err, is_quiet, note
from fseft.cli.remaining_time import RemainingTime
from fseft.escaping import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fseft.learn.training.progress import Epoch

SECONDS_BETWEEN_LINES = 20.0


@contextmanager
def training_progress(description: str) -> Iterator[Callable[[Epoch], None]]:
    """Shows the progress of a training on stderr, and the remaining time as it is measured.

    Args:
        description: Name of the training, unless the epochs name its stage.

    Yields:
        A function to call after each step.
    """
    if is_quiet():
        yield lambda _: None
        return
    with _bar(description) if err.is_terminal else _lines(description) as on_step:
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


class _Stages:
    """The stage of the epochs, and its remaining time, which is measured in each stage."""

    def __init__(self, description: str) -> None:
        self.name = printable(description)
        self._remaining = RemainingTime()

    def update(self, epoch: Epoch) -> str:
        """Returns the remaining time as text; empty while it is unknown."""
        stage = printable(epoch.stage) or self.name
        if stage != self.name:
            self.name = stage
            self._remaining = RemainingTime()
        seconds = self._remaining.update(epoch.seconds, epoch.progress)
        return f"about {duration(seconds)} left" if math.isfinite(seconds) else ""


@contextmanager
def _bar(description: str) -> Iterator[Callable[[Epoch], None]]:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    stages = _Stages(description)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("epoch {task.fields[epoch]}  {task.fields[state]}", markup=False),
        TextColumn("{task.fields[remaining]}", style="cyan", markup=False),
    )
    with Progress(*columns, console=err) as bar:
        task = bar.add_task(stages.name, total=1.0, epoch=0, state="", remaining="")

        def on_step(epoch: Epoch) -> None:
            remaining = stages.update(epoch)
            bar.update(
                task,
                description=stages.name,
                completed=epoch.progress,
                epoch=epoch.number,
                state=_state(epoch),
                remaining=remaining,
            )

        yield on_step
        bar.update(
            task, completed=1.0, remaining=""
        )  # early stopping or a budget may have ended it


@contextmanager
def _lines(description: str) -> Iterator[Callable[[Epoch], None]]:
    """A line after the first step of each stage, then now and then, with the remaining time."""
    stages, last, last_name = _Stages(description), -math.inf, ""

    def on_step(epoch: Epoch) -> None:
        nonlocal last, last_name
        remaining = stages.update(epoch)
        if stages.name == last_name and time.monotonic() - last < SECONDS_BETWEEN_LINES:
            return
        last, last_name = time.monotonic(), stages.name
        state = f"epoch {epoch.number} ({epoch.progress:.0%}), {_state(epoch)}"
        note(f"{stages.name}: {state}{', ' if remaining else ''}{remaining}")

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
