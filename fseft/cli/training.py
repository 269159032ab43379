"""How training looks while it goes on: a bar with loss and time left, or a line now and then."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fseft.cli.console import err, note

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fseft.learn.loop import Epoch

SECONDS_BETWEEN_LINES = 20.0


@contextmanager
def training_progress(description: str) -> Iterator[Callable[[Epoch], None]]:
    """Give a function to call after each epoch."""
    with _bar(description) if err.is_terminal else _lines(description) as on_epoch:
        yield on_epoch


@contextmanager
def _bar(description: str) -> Iterator[Callable[[Epoch], None]]:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("epoch {task.fields[epoch]}  loss {task.fields[loss]:.4f}"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=err) as bar:
        task = bar.add_task(description, total=1.0, epoch=0, loss=float("nan"))
        yield lambda e: bar.update(task, completed=e.progress, epoch=e.number, loss=e.loss)


@contextmanager
def _lines(description: str) -> Iterator[Callable[[Epoch], None]]:
    last = time.monotonic()

    def on_epoch(epoch: Epoch) -> None:
        nonlocal last
        if time.monotonic() - last < SECONDS_BETWEEN_LINES:
            return
        last = time.monotonic()
        left = epoch.seconds * (1 - epoch.progress) / max(epoch.progress, 1e-6)
        note(f"{description}: epoch {epoch.number}, loss {epoch.loss:.4f}, at most {left / 60:.1f} min left")

    yield on_epoch
