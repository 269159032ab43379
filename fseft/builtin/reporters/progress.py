"""The reporter `progress`: the curves of loss and Dice in `progress.png` of the run folder."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fseft import workspace
from fseft.plugin import ReporterSpec, hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from PIL.ImageDraw import ImageDraw

    Box = tuple[int, int, int, int]
    Point = tuple[float, float]

SPEC = ReporterSpec(
    name="progress",
    factory="fseft.builtin.reporters.progress:ProgressReporter",
    summary="the curves of loss and Dice in progress.png of the run folder",
)

_SECONDS_BETWEEN_PICTURES = 15.0
_SIZE = (1000, 460)
_LOSS_BOX: Box = (70, 40, 420, 410)
_DICE_BOX: Box = (500, 40, 760, 410)
_LEGEND_X, _LEGEND_ROW, _LEGEND_ROWS = 775, 20, 18
_BLACK, _GREY = (30, 30, 30), (205, 205, 205)
# Okabe & Ito 2008: distinct for colour-blind readers.
_COLOURS = (
    *((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167)),
    *((230, 159, 0), (86, 180, 233), (120, 120, 120), (0, 0, 0)),
)


class ProgressReporter:
    """Draws the log of a run every few epochs, and at its end.

    Args:
        run_folder: Folder of `log.jsonl` and `progress.png`.
    """

    def __init__(self, run_folder: Path) -> None:
        self.folder = run_folder
        self._drawn = time.monotonic()

    @hookimpl
    def fseft_epoch_end(self) -> None:
        """Draws the curves, unless they were drawn seconds ago."""
        if time.monotonic() - self._drawn > _SECONDS_BETWEEN_PICTURES:
            self._draw()
            self._drawn = time.monotonic()

    @hookimpl
    def fseft_run_end(self) -> None:
        """Draws the curves of the whole run."""
        self._draw()

    def _draw(self) -> None:
        from PIL import Image, ImageDraw

        epochs = _read_log(self.folder / "log.jsonl")
        if not epochs:
            return
        picture = Image.new("RGB", _SIZE, "white")
        draw = ImageDraw.Draw(picture)
        last = epochs[-1]["epoch"]
        losses = [(entry["epoch"], entry["loss"]) for entry in epochs]
        values = [0.0, *(loss for _, loss in losses)]
        axes = _Axes(draw, _LOSS_BOX, last, min(values), max(values))
        axes.draw_frame("training loss")
        axes.draw_curve(0, losses)
        dice = _dice_curves(epochs)
        axes = _Axes(draw, _DICE_BOX, last, 0.0, 1.0)
        axes.draw_frame("Dice on training crops")
        for number, curve in enumerate(dice.values()):
            axes.draw_curve(number, curve)
        _write_legend(draw, dice)
        with workspace.atomic_write(self.folder / "progress.png") as path:
            picture.save(path, format="PNG")


def _read_log(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _dice_curves(epochs: Sequence[dict[str, Any]]) -> dict[str, list[Point]]:
    """Returns structure -> points (epoch, Dice), the lowest last value first."""
    curves: dict[str, list[Point]] = {}
    for entry in epochs:
        for name, value in entry.get("dice", {}).items():
            curves.setdefault(name, []).append((entry["epoch"], value))
    return dict(sorted(curves.items(), key=lambda item: item[1][-1][1]))


@dataclass(frozen=True)
class _Axes:
    """A plot from epoch 1 to the last one."""

    draw: ImageDraw
    box: Box
    last: float
    low: float
    high: float

    def position(self, point: Point) -> Point:
        """Returns the pixel of a point (epoch, value)."""
        epoch, value = point
        left, top, right, bottom = self.box
        across = (epoch - 1) / max(self.last - 1, 1)
        up = (value - self.low) / max(self.high - self.low, 1e-9)
        x = left + (right - left) * across
        y = bottom - (bottom - top) * up
        return x, y

    def draw_frame(self, title: str) -> None:
        """Draws the grid with its numbers."""
        left, top, right, bottom = self.box
        height = self.high - self.low
        for fraction in (0, 0.25, 0.5, 0.75, 1):
            value = self.low + height * fraction
            _, y = self.position((1, value))
            self.draw.line([left, y, right, y], fill=_GREY)
            _write(self.draw, (left - 8, y), f"{value:.2f}", anchor="rm")
        _write(self.draw, (left, top - 22), title)
        _write(self.draw, (left, bottom + 12), "1")
        _write(self.draw, (right, bottom + 12), f"epoch {self.last:g}", anchor="ra")

    def draw_curve(self, number: int, curve: Sequence[Point]) -> None:
        """Draws a curve in the colour of its number."""
        points = [self.position(point) for point in curve]
        if len(points) == 1:
            points *= 2
        self.draw.line(points, fill=_colour(number), width=2)


def _colour(number: int) -> tuple[int, int, int]:
    return _COLOURS[number % len(_COLOURS)]


def _write(draw: ImageDraw, position: Point, text: str, anchor: str = "la") -> None:
    draw.text(position, text, fill=_BLACK, anchor=anchor, font_size=14)


def _write_legend(draw: ImageDraw, curves: dict[str, list[Point]]) -> None:
    """Writes the structures with their last Dice, the lowest first."""
    y = _DICE_BOX[1]
    for number, (name, curve) in enumerate(curves.items()):
        if number == _LEGEND_ROWS:
            hidden = len(curves) - number
            _write(draw, (_LEGEND_X, y), f"and {hidden} more, of higher Dice")
            return
        left, top = _LEGEND_X, y + 3
        draw.rectangle([left, top, left + 12, top + 8], fill=_colour(number))
        _, last = curve[-1]
        _write(draw, (left + 20, y), f"{last:.2f}  {name[:24]}")
        y += _LEGEND_ROW
