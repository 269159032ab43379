"""Terminal output: results on stdout; progress, warnings and errors on stderr."""

from __future__ import annotations

import json
import logging
import math
import sys
import time
import traceback
import warnings
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Literal, TextIO

import typer
from rich.console import Console
from rich.markup import escape

from fseft.cli.remaining_time import RemainingTime
from fseft.cli.tables import column_widths
from fseft.escaping import escape_json, printable
from fseft.experiment.callbacks import Callbacks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

out = Console()
err = Console(stderr=True)

_SECONDS_BETWEEN_LINES = 10.0  # where stderr is a log file, not a terminal


def is_quiet() -> bool:
    """Whether only results are printed (`--quiet`)."""
    return logging.getLogger("fseft").level >= logging.ERROR


def is_verbose() -> bool:
    """Whether details are printed (`--verbose`)."""
    return logging.getLogger("fseft").isEnabledFor(logging.DEBUG)


@contextmanager
def progress(total: int, description: str) -> Iterator[Callable[[str], None]]:
    """Shows the progress of a stage on stderr: a bar on a terminal, a line now and then elsewhere.

    Args:
        total: Number of items.
        description: Name of the stage, as in "preprocess".

    Yields:
        A function to call with the name of each item once it is processed.
    """
    if is_quiet():
        yield lambda _: None
        return
    with _bar(total, description) if err.is_terminal else _lines(total, description) as advance:
        yield advance


@contextmanager
def _bar(total: int, description: str) -> Iterator[Callable[[str], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[remaining]}", style="cyan", markup=False),
        TextColumn("{task.fields[item]}", style="dim", markup=False),
    )
    remaining = _remaining_after_items(total)
    with Progress(*columns, console=err) as bar:
        task = bar.add_task(printable(description), total=total, item="", remaining="")
        yield lambda name: bar.update(
            task, advance=1, item=printable(name), remaining=remaining().removeprefix(", ")
        )


@contextmanager
def _lines(total: int, description: str) -> Iterator[Callable[[str], None]]:
    last, finished = time.monotonic(), 0
    remaining = _remaining_after_items(total)

    def advance(name: str) -> None:
        nonlocal last, finished
        finished += 1
        left = remaining()
        if time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            _line(f"{description} {finished}/{total}{left} ({name})")

    yield advance


def _remaining_after_items(total: int) -> Callable[[], str]:
    """Returns a function to call after each item, which returns the remaining time as text."""
    estimate, finished = RemainingTime(), 0
    estimate.update(time.monotonic(), 0)

    def after_item() -> str:
        nonlocal finished
        finished += 1
        seconds = estimate.update(time.monotonic(), finished / max(total, finished))
        is_known = math.isfinite(seconds) and finished < total
        return f", {duration(seconds)} left" if is_known else ""

    return after_item


@contextmanager
def download(file: str) -> Iterator[Callable[[int, int], None]]:
    """Shows the progress of a download on stderr.

    Yields:
        A function to call with the number of bytes received, and their total (0: unknown).
    """
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=err, disable=is_quiet() or not err.is_terminal) as bar:
        task = bar.add_task(f"download {file}", total=None)
        yield lambda received, total: bar.update(task, completed=received, total=total or None)


@contextmanager
def working(activity: str) -> Iterator[None]:
    """Shows on a terminal that something is running, as long as it is."""
    show = err.is_terminal and not is_quiet()
    with err.status(escape(printable(activity))) if show else nullcontext():
        yield


def duration(seconds: float) -> str:
    """Formats a rough time span.

    Examples:
        >>> duration(40), duration(720), duration(12600)
        ('40 s', '12 min', '3.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def warn(message: str) -> None:
    """Prints one line on stderr: `warning: ...`."""
    _line(f"warning: {message}", style="yellow")


def fail(message: str) -> None:
    """Prints one line on stderr: `error: ...`."""
    _line(f"error: {message}", style="red")


def note(message: str) -> None:
    """Prints one dim line on stderr, except with `--quiet`."""
    if not is_quiet():
        _line(message, style="dim")


def _line(text: str, style: str | None = None) -> None:
    # Brackets in paths and values are not markup; a log file has one line per message.
    one_line = not err.is_terminal
    line = " ".join(printable(text).split())
    err.print(line, style=style, markup=False, highlight=False, soft_wrap=one_line)


def show_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()
) -> None:
    """Prints a table on stdout.

    Args:
        columns: Headings; the head is omitted if all are empty.
        rows: Rows of plain text, a cell per column.
        right: Headings of right-aligned columns.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    columns, right = list(map(printable, columns)), list(map(printable, right))
    body = [tuple(map(printable, row)) for row in rows]
    widths = column_widths(columns, body, out.width)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_header=any(columns))
    for column, width in zip(columns, widths, strict=True):
        justify: Literal["left", "right"] = "right" if column in right else "left"
        table.add_column(Text(column), justify=justify, overflow="fold", width=width)
    for row in body:
        table.add_row(*(Text(cell) for cell in row))
    out.print(table)


def show_paragraph(text: str) -> None:
    """Prints text on stdout, with lines broken between words at the width of the terminal."""
    out.print(printable(text), markup=False, highlight=False)


def show_lines(lines: Iterable[str]) -> None:
    """Prints plain lines on stdout, without line breaks or colours in paths and names."""
    for line in lines:
        out.print(printable(line), markup=False, highlight=False, soft_wrap=True)


def show_json(data: object) -> None:
    """Prints plain data on stdout as JSON."""
    typer.echo(escape_json(json.dumps(data, indent=2, ensure_ascii=False)))


@contextmanager
def one_line_warnings() -> Iterator[None]:
    """Prints Python's warnings by `warn` within the context; omits those for developers."""

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
        )  # users do not need the line of code
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

    def __init__(self, spell: Callable[[str], str]) -> None:
        super().__init__()
        self._spell = spell

    def emit(self, record: logging.LogRecord) -> None:
        message = self._spell(record.getMessage())
        if record.levelno >= logging.ERROR:
            fail(message)
        elif record.levelno >= logging.WARNING:
            warn(message)
        else:
            note(message)
        if record.exc_info:
            traceback.print_exception(record.exc_info[1])
        elif record.exc_text:  # from a worker process
            sys.stderr.write(record.exc_text + "\n")


def configure_logging(level: int = logging.INFO, spell: Callable[[str], str] = str) -> None:
    """Prints messages of the library from this level on; replaces earlier handlers.

    Args:
        level: Level of the logging module.
        spell: Returns a message with the options of the command instead of parameters.
    """
    logging.getLogger("fseft").handlers = [_LogHandler(spell)]
    set_log_level(level)


def set_log_level(level: int) -> None:
    """Prints messages of the library from this level on."""
    logging.getLogger("fseft").setLevel(level)
