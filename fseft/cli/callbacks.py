"""Callbacks that show on the terminal how far a command is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fseft.cli import console
from fseft.cli.console import ConsoleCallbacks
from fseft.errors import pluralise
from fseft.experiment.callbacks import Callbacks

if TYPE_CHECKING:
    from collections.abc import Callable

    from fseft.learn.training.progress import Epoch

SECONDS_WORTH_SHOWING = 5.0


class StepCallbacks(Callbacks):
    """Show the training steps only."""

    def __init__(self, on_step: Callable[[Epoch], None]) -> None:
        self._on_step = on_step

    def on_step(self, epoch: Epoch) -> None:
        """Updates the bar."""
        self._on_step(epoch)


class PredictCallbacks(ConsoleCallbacks):
    """Show the progress, and after the first window of a large scan the time that it will take."""

    def __init__(self) -> None:
        self._started = 0.0
        self._shown: set[str] = set()

    def on_window(self, scan: str, finished: int, total: int) -> None:
        """Estimate the time from the first windows."""
        if finished == 0:
            self._started = time.monotonic()
        elif scan not in self._shown:
            self._shown.add(scan)
            seconds = (time.monotonic() - self._started) / finished * (total - finished)
            if seconds >= SECONDS_WORTH_SHOWING:
                remaining = console.duration(seconds)
                console.note(f"{scan}: {pluralise(total, 'window')}, about {remaining} left")
