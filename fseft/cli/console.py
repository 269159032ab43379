"""What the terminal sees: results on stdout; progress, warnings and errors on stderr."""

from __future__ import annotations

import json
import logging
import time
import warnings
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, TextIO

import typer
from rich.console import Console
from rich.markup import escape

from fseft.experiment.callbacks import Callbacks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

out = Console()
err = Console(stderr=True)

_SECONDS_BETWEEN_LINES = 10.0  # where stderr is a log file, not a terminal


@contextmanager
def progress(total: int, description: str) -> Iterator[Callable[[str], None]]:
    """Show on stderr how far a long work is: a bar on a terminal, now and then a line elsewhere.

    Args:
        total: How many items there are.
        description: What is done, as in "preprocess".

    Yields:
        A function to call with the name of each item that is done.
    """
    with _bar(total, description) if err.is_terminal else _lines(total, description) as advance:
        yield advance


@contextmanager
def _bar(total: int, description: str) -> Iterator[Callable[[str], None]]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[item]}", style="dim", markup=False),
    )
    with Progress(*columns, console=err) as bar:
        task = bar.add_task(description, total=total, item="")
        yield lambda name: bar.update(task, advance=1, item=name)


@contextmanager
def _lines(total: int, description: str) -> Iterator[Callable[[str], None]]:
    start = last = time.monotonic()
    done = 0

    def advance(name: str) -> None:
        nonlocal last, done
        done += 1
        now = time.monotonic()
        if now - last >= _SECONDS_BETWEEN_LINES:
            last = now
            left = (now - start) / done * max(0, total - done)
            _line(f"{description} {done}/{total}, {duration(left)} left ({name})")

    yield advance


@contextmanager
def download(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show on stderr how much of a file is here.

    Yields:
        A function to call with the bytes that are here, and how many there will be (0: unknown).
    """
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=err, disable=not err.is_terminal) as bar:
        task = bar.add_task(f"get {what}", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show on a terminal that something is under way, as long as it is."""
    with err.status(escape(what)) if err.is_terminal else nullcontext():
        yield


def duration(seconds: float) -> str:
    """A rough time span: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def warn(message: str) -> None:
    """One line on stderr: `warning: ...`."""
    _line(f"warning: {message}", style="yellow")


def fail(message: str) -> None:
    """One line on stderr: `error: ...`."""
    _line(f"error: {message}", style="red")


def note(message: str) -> None:
    """One dim line on stderr."""
    _line(message, style="dim")


def _line(text: str, style: str | None = None) -> None:
    # Paths and values may hold brackets, which are no markup, and are never broken at the terminal's width.
    err.print(" ".join(text.split()), style=style, markup=False, highlight=False, soft_wrap=True)


def show_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()
) -> None:
    """Print a table on stdout.

    Args:
        columns: The headings; without any text, the head is left out.
        rows: One cell per column, plain text.
        right: The headings of the columns set flush right.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_header=any(columns))
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    out.print(table)


def show_lines(lines: Iterable[str]) -> None:
    """Print plain lines on stdout; paths and names are never broken nor coloured."""
    for line in lines:
        out.print(line, markup=False, highlight=False, soft_wrap=True)


def show_json(data: object) -> None:
    """Print plain data on stdout as JSON."""
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False))


@contextmanager
def one_line_warnings() -> Iterator[None]:
    """Within this, Python's warnings are told through `warn`; those for developers are left out."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        del (
            category,
            filename,
            lineno,
            file,
            line,
        )  # where a warning was raised is no news to a user
        warn(str(message))

    with warnings.catch_warnings():
        for category in (FutureWarning, DeprecationWarning, PendingDeprecationWarning):
            warnings.simplefilter("ignore", category)
        warnings.showwarning = show
        yield


class ConsoleCallbacks(Callbacks):
    """Callbacks that show progress on the terminal."""

    def progress(
        self, description: str, total: int
    ) -> AbstractContextManager[Callable[[str], None]]:
        """Shows a bar, or a line now and then in a log file."""
        return progress(total, description)


class _LogHandler(logging.Handler):
    """Prints log records of the library in one line each."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR:
            fail(record.getMessage())
        elif record.levelno >= logging.WARNING:
            warn(record.getMessage())
        else:
            note(record.getMessage())


def configure_logging(level: int = logging.INFO) -> None:
    """Shows messages of the library from this level on; replaces the handlers of an earlier call."""
    logger = logging.getLogger("fseft")
    logger.handlers = [_LogHandler()]
    logger.setLevel(level)
