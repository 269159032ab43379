"""A self-contained HTML page of text, tables and figures: no script, no link, ready to mail and to print."""

from __future__ import annotations

import math
from base64 import b64encode
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING, Literal, TypeAlias

from fseft.errors import FseftError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Value: TypeAlias = "str | float | None"


@dataclass(frozen=True)
class Highlight:
    """One figure at the top of the page that says how it went."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Column:
    """A column: its numbers are written with so many digits after the point, and its best is marked."""

    title: str
    digits: int = 3
    best: Literal["highest", "lowest"] | None = None


@dataclass(frozen=True)
class Table:
    """Rows of text and numbers under their columns; None and NaN are written as a dash.

    Raises:
        FseftError: A row has not as many cells as there are columns.
    """

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Value]]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise FseftError(
                    f"table {self.caption!r} has {len(self.columns)} columns and a row of {len(row)} cells"
                )


@dataclass(frozen=True)
class Figure:
    """A picture: the bytes of a PNG, or SVG text, which must be our own: it is not escaped."""

    caption: str
    image: bytes | str
    legend: Mapping[str, Sequence[int]] = field(default_factory=dict)  # red, green, blue by name


@dataclass(frozen=True)
class Section:
    """A part of the page; an empty line in its text begins a new paragraph."""

    title: str
    text: str = ""
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()


@dataclass(frozen=True)
class Page:
    """The whole page."""

    title: str
    subtitle: str = ""
    summary: Sequence[Highlight] = ()
    sections: Sequence[Section] = ()
    footer: str = ""


@dataclass(frozen=True)
class _Cell:
    text: str
    classes: str


def render_page(page: Page) -> str:
    """Render a page as one HTML document; all text in it is escaped."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(
        (files("fseft.reporting") / "page.html.jinja").read_text("utf-8")
    )
    helpers = (_paragraphs, _cells, _is_numeric, _is_wide, _data_uri)
    return template.render(page=page, **{helper.__name__[1:]: helper for helper in helpers})


def _paragraphs(text: str) -> list[str]:
    return [paragraph for paragraph in text.split("\n\n") if paragraph.strip()]


def _data_uri(image: bytes) -> str:
    return f"data:image/png;base64,{b64encode(image).decode('ascii')}"


def _is_wide(image: bytes | str) -> bool:
    """Whether a picture is too wide to share a line: more than twice as wide as high."""
    if isinstance(image, str):
        return False
    width, height = (
        int.from_bytes(image[at : at + 4], "big") for at in (16, 20)
    )  # of the PNG header
    return width > 2 * height


def _cells(table: Table) -> list[list[_Cell]]:
    numeric = [_is_numeric(table, at) for at in range(len(table.columns))]
    best = [_best(table, at) for at in range(len(table.columns))]
    return [
        [
            _Cell(text, " ".join(["number"] * numeric[at] + ["best"] * (text in best[at])))
            for at, text in enumerate(map(_written, row, table.columns))
        ]
        for row in table.rows
    ]


def _is_numeric(table: Table, at: int) -> bool:
    return any(not isinstance(row[at], str | None) for row in table.rows)


def _best(table: Table, at: int) -> set[str]:
    """The best value of a column as it is written, so that what reads equal is marked alike."""
    column = table.columns[at]
    numbers = [row[at] for row in table.rows]
    known = [
        number for number in numbers if isinstance(number, int | float) and math.isfinite(number)
    ]
    if column.best is None or len(known) < 2:
        return set()
    return {_written(max(known) if column.best == "highest" else min(known), column)}


def _written(value: Value, column: Column) -> str:
    if isinstance(value, str):
        return value
    if value is None or math.isnan(value):
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.{column.digits}f}"
