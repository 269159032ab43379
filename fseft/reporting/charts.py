"""Line charts as inline SVG."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape as escape_html
from typing import TYPE_CHECKING

from fseft.escaping import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Point = tuple[float, float]

# Okabe-Ito colours that stand out on white and on black.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_DASHES = ("none", "6 3", "2 3")
_WIDTH, _LEFT, _RIGHT, _PLOT_HEIGHT = 480, 58, 466, 200
_LEGEND_TOP, _LEGEND_ROW = 12, 20
_LEGEND_SYMBOL, _LETTER = 34, 7  # widths of a legend entry without text, and of a letter
_MAX_DOTS = 24  # lines with more points have no dots
_TICKS = 5


def line_chart(series: Mapping[str, Sequence[Point]], *, x_label: str, y_label: str) -> str:
    """Draws a small line chart; axes and text have the colour of the surrounding text.

    Args:
        series: Points (x, y) by name; points that are not finite are left out.
        x_label: Name and unit of x.
        y_label: Name and unit of y.

    Returns:
        An `<svg>` element.
    """
    lines = {name: _finite(points) for name, points in series.items()}
    chart = _Chart.around([point for line in lines.values() for point in line], _legend(lines))
    parts = [*chart.axes(), *chart.axis_labels(x_label, y_label)]
    for number, (name, line) in enumerate(lines.items()):
        parts += chart.line(number, name, line)
    title = _escape(f"{y_label} by {x_label}: {', '.join(lines)}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {chart.bottom + 44:g}" '
        'role="img" font-family="inherit" font-size="12" fill="currentColor">'
        f"<title>{title}</title>{''.join(parts)}</svg>"
    )


def _escape(text: str) -> str:
    return escape_html(printable(text))


def _finite(points: Iterable[Point]) -> list[Point]:
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]


@dataclass(frozen=True)
class _Legend:
    """Arrangement of the legend above the plot."""

    columns: int
    rows: int

    def position(self, number: int) -> Point:
        row, column = divmod(number, self.columns)
        x = _LEFT + column * (_RIGHT - _LEFT) / self.columns
        return x, _LEGEND_TOP + row * _LEGEND_ROW


def _legend(names: Iterable[str]) -> _Legend:
    lengths = [len(name) for name in names]
    entry = _LEGEND_SYMBOL + _LETTER * max(lengths, default=0)
    columns = max(1, (_RIGHT - _LEFT) // entry)
    return _Legend(columns, math.ceil(len(lengths) / columns))


@dataclass(frozen=True)
class _Chart:
    """Ticks of both axes, and the transform from values to coordinates of the picture."""

    x_ticks: list[float]
    y_ticks: list[float]
    legend: _Legend

    @classmethod
    def around(cls, points: Sequence[Point], legend: _Legend) -> _Chart:
        """Makes a chart that contains all points."""
        xs = [x for x, _ in points] or [0.0, 1.0]
        ys = [y for _, y in points] or [0.0, 1.0]
        x_ticks = _ticks(min(xs), max(xs))
        y_ticks = _ticks(min(ys), max(ys))
        return cls(x_ticks, y_ticks, legend)

    @property
    def top(self) -> int:
        return _LEGEND_TOP + _LEGEND_ROW * self.legend.rows

    @property
    def bottom(self) -> int:
        return self.top + _PLOT_HEIGHT

    def x(self, value: float) -> float:
        """Returns the horizontal coordinate of a value."""
        fraction = _fraction(value, self.x_ticks)
        return round(_LEFT + fraction * (_RIGHT - _LEFT), 1)

    def y(self, value: float) -> float:
        """Returns the vertical coordinate of a value."""
        fraction = _fraction(value, self.y_ticks)
        return round(self.bottom - fraction * _PLOT_HEIGHT, 1)

    def axes(self) -> list[str]:
        """Returns grid lines, ticks and their values."""
        parts = []
        for value in self.y_ticks:
            y = self.y(value)
            parts += [
                f'<path d="M{_LEFT} {y}H{_RIGHT}" stroke="currentColor" stroke-opacity=".15"/>',
                f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end" opacity=".75">',
                f"{value:g}</text>",
            ]
        for value in self.x_ticks:
            x = self.x(value)
            parts += [
                f'<path d="M{x} {self.bottom}v4" stroke="currentColor" stroke-opacity=".5"/>',
                f'<text x="{x}" y="{self.bottom + 18}" text-anchor="middle" opacity=".75">',
                f"{value:g}</text>",
            ]
        return parts

    def axis_labels(self, x_label: str, y_label: str) -> list[str]:
        """Returns the horizontal axis and the names of both axes."""
        middle, height = (_LEFT + _RIGHT) / 2, (self.top + self.bottom) / 2
        line = f"M{_LEFT} {self.bottom}H{_RIGHT}"
        return [
            f'<path d="{line}" stroke="currentColor" stroke-opacity=".5"/>',
            f'<text x="{middle}" y="{self.bottom + 37}" text-anchor="middle">',
            f"{_escape(x_label)}</text>",
            f'<text transform="translate(14 {height})rotate(-90)" text-anchor="middle">',
            f"{_escape(y_label)}</text>",
        ]

    def line(self, number: int, name: str, points: Sequence[Point]) -> list[str]:
        """Returns a series with its entry in the legend."""
        stroke = _stroke(number)
        x, y = self.legend.position(number)
        coordinates = [(self.x(a), self.y(b)) for a, b in points]
        path = " ".join(f"{a},{b}" for a, b in coordinates)
        # A dot is a line of zero length with round ends, so that it has the colour of its line.
        dots = "".join(f"M{a} {b}h0" for a, b in coordinates[: _MAX_DOTS + 1])
        if len(coordinates) > _MAX_DOTS:
            dots = ""
        return [
            f'<g fill="none" stroke-width="2" stroke-linejoin="round" {stroke}>',
            f'<path d="M{x:g} {y:g}h18"/><polyline points="{path}"/></g>',
            f'<path d="{dots}" stroke-width="6" stroke-linecap="round" {stroke}/>',
            f'<text x="{x + 24:g}" y="{y + 4:g}">{_escape(name)}</text>',
        ]


def _fraction(value: float, ticks: Sequence[float]) -> float:
    """Returns the position of a value between the first tick (0) and the last (1)."""
    first = ticks[0]
    length = ticks[-1] - first
    return (value - first) / length


def _ticks(low: float, high: float) -> list[float]:
    """Returns round values at steps of 1, 2 or 5 times a power of ten that enclose the range."""
    if high - low < 1e-9:  # practically a single value
        half = 0.5 * abs(low) if abs(low) > 1e-9 else 0.5
        low, high = low - half, high + half
    smallest = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(smallest))
    step = power
    for factor in (2, 5, 10):
        if step < smallest * 0.999:
            step = power * factor
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _stroke(number: int) -> str:
    """Returns the colour of a series, and dashes after the colours are used up."""
    rounds, colour = divmod(number, len(_COLOURS))
    dashes = _DASHES[rounds % len(_DASHES)]
    return f'stroke="{_COLOURS[colour]}" stroke-dasharray="{dashes}"'
