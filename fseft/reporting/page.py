"""A self-contained HTML page of text, tables and figures, without scripts or external files."""

from __future__ import annotations

import math
from base64 import b64encode
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING, Literal, TypeAlias

from fseft.errors import FseftError
from fseft.escaping import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_MARK = b'<meta name="generator" content="fseft">'
_HEAD = 1024  # bytes that contain the mark
Value: TypeAlias = "str | float | None"


@dataclass(frozen=True)
class Highlight:
    """A key result at the top of the page."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Column:
    """A table column.

    Attributes:
        title: Heading.
        digits: Decimal places of floating-point numbers.
        best: Which value to highlight.
    """

    title: str
    digits: int = 3
    best: Literal["highest", "lowest"] | None = None


@dataclass(frozen=True)
class Table:
    """A table; None and NaN are shown as a dash.

    Raises:
        FseftError: The number of cells in a row is not that of the columns.
    """

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Value]]

    def __post_init__(self) -> None:
        columns = len(self.columns)
        for row in self.rows:
            if len(row) == columns:
                continue
            message = f"table {self.caption!r} has {columns} columns and a row of {len(row)} cells"
            raise FseftError(message)


@dataclass(frozen=True)
class Panel:
    """One of several pictures of a figure: its title, and the bytes of a PNG."""

    title: str
    image: bytes


@dataclass(frozen=True)
class Figure:
    """A picture, or panels that are below each other on a narrow screen, with a caption.

    Attributes:
        caption: Text below the picture.
        image: Bytes of a PNG, or an `<svg>` element, which is not escaped: never from user input.
        legend: Colour (red, green, blue) by name.
        panels: Pictures side by side, instead of `image`.
        title: Heading above the picture.
    """

    caption: str
    image: bytes | str = ""
    legend: Mapping[str, Sequence[int]] = field(default_factory=dict)
    panels: Sequence[Panel] = ()
    title: str = ""


@dataclass(frozen=True)
class Section:
    """A section; an empty line in its text begins a new paragraph.

    Attributes:
        title: Heading.
        text: Paragraphs.
        tables: Tables below the text.
        figures: Figures below the tables.
        code: Commands below the text, shown as they are.
    """

    title: str
    text: str = ""
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    code: str = ""


@dataclass(frozen=True)
class Page:
    """Contents of a page."""

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
    """Returns a page as an HTML document; all its text is escaped."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        finalize=_finalised,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    source = (files("fseft.reporting") / "page.html.jinja").read_text("utf-8")
    template = environment.from_string(source)
    return template.render(
        page=page,
        paragraphs=_paragraphs,
        cells=_cells,
        is_numeric=_is_numeric,
        is_wide=_is_wide,
        data_uri=_data_uri,
    )


def is_own_page(path: Path) -> bool:
    """Returns whether a file is a page that `render_page` made."""
    with path.open("rb") as file:
        return _MARK in file.read(_HEAD)


def _finalised(value: object) -> object:
    """Makes control characters visible; markup of our own, such as charts, has none."""
    return printable(value) if type(value) is str else value


def _paragraphs(text: str) -> list[str]:
    return [paragraph for paragraph in text.split("\n\n") if paragraph.strip()]


def _data_uri(image: bytes) -> str:
    return f"data:image/png;base64,{b64encode(image).decode('ascii')}"


def _is_wide(figure: Figure) -> bool:
    """Returns whether a figure needs a line to itself: panels, or twice as wide as high."""
    image = figure.image
    if figure.panels:
        return True
    if isinstance(image, str):
        return False
    width = int.from_bytes(image[16:20], "big")  # PNG header
    height = int.from_bytes(image[20:24], "big")
    return width > 2 * height


def _cells(table: Table) -> list[list[_Cell]]:
    """Returns the cells of a table as text with CSS classes."""
    numbers = range(len(table.columns))
    numeric = [_is_numeric(table, number) for number in numbers]
    best = [_best_text(table, number) for number in numbers]
    rows = []
    for row in table.rows:
        cells = []
        for number, value in enumerate(row):
            text = _cell_text(value, table.columns[number])
            classes = ["number"] if numeric[number] else []
            if text == best[number]:
                classes.append("best")
            cells.append(_Cell(text, " ".join(classes)))
        rows.append(cells)
    return rows


def _is_numeric(table: Table, number: int) -> bool:
    return any(isinstance(row[number], int | float) for row in table.rows)


def _best_text(table: Table, number: int) -> str | None:
    """Returns the best value of a column as shown, so that equal texts are highlighted alike."""
    column = table.columns[number]
    values = [row[number] for row in table.rows]
    finite = [v for v in values if isinstance(v, int | float) and math.isfinite(v)]
    if column.best is None or len(finite) < 2:
        return None
    best = max(finite) if column.best == "highest" else min(finite)
    return _cell_text(best, column)


def _cell_text(value: Value, column: Column) -> str:
    if isinstance(value, str):
        return value
    if value is None or math.isnan(value):
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.{column.digits}f}"
