"""Widths of the columns of a table, so that names stay whole in a narrow terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

EDGES, GAP = 2, 3
"""Characters at the sides of a table, and between two of its columns."""


@dataclass(frozen=True)
class _Column:
    """A heading, and the cells below it as lines of one text."""

    title: str
    text: str

    @property
    def word(self) -> int:
        """Width of the heading or the longest word."""
        return max(map(len, [self.title, *self.text.split()]))

    @property
    def line(self) -> int:
        """Width of the heading or the longest line."""
        return max(map(len, [self.title, *self.text.splitlines()]))

    def width(self, growth: float) -> int:
        """Returns the width of the longest word, plus `growth` for each character of the text."""
        return min(self.line, self.word + int(growth * len(self.text)))


def column_widths(
    headings: Sequence[str], rows: Sequence[Sequence[str]], total: int
) -> list[int | None]:
    """Distributes the width of a table over its columns.

    Each column gets the width of its heading and longest word, and a share of the rest in
    proportion to its text.

    Args:
        headings: One per column.
        rows: Cells, one per column.
        total: Characters of a line.

    Returns:
        Characters of each column; None for the natural width, where all lines or not even all
        words fit.

    Examples:
        >>> column_widths(["", ""], [("lora", "low-rank deltas on frozen weights")], total=28)
        [4, 17]
    """
    columns = []
    for number, title in enumerate(headings):
        cells = [row[number] for row in rows]
        columns.append(_Column(title, "\n".join(cells)))
    free = total - EDGES - GAP * (len(columns) - 1)
    rest = free - sum(column.word for column in columns)
    if rest < 0 or sum(column.line for column in columns) <= free:
        return [None] * len(columns)
    size = sum(len(column.text) for column in columns)
    return [column.width(rest / size) for column in columns]
