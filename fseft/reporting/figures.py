"""Pictures of volumes with their labels (PNG) and small line charts (SVG), without a plotting library."""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from fseft.errors import FseftError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    RGB = NDArray[np.uint8]

# Okabe & Ito 2008, https://jfly.uni-koeln.de/color/: distinct to colour-blind eyes. Their black is left
# out, and neighbours in the list differ in lightness too.
_OKABE_ITO = ("e69f00", "56b4e9", "009e73", "f0e442", "cc79a7", "0072b2", "d55e00")
_ON_PAPER = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_LEGEND_ROW = 20  # pixels
_DOTS = 24  # a series of so few points shows them
_FILL = 0.22
_BLACK = 0.05  # of the window: darker rims of a slice are air
_RIM = 2  # pixels of air that stay around the body


def png(rgb: RGB) -> bytes:
    """Encode a picture of shape (h, w, 3) as PNG (W3C Portable Network Graphics, second edition)."""
    height, width, _ = rgb.shape
    lines = np.ascontiguousarray(rgb, dtype=np.uint8).reshape(height, width * 3)
    filtered = np.pad(lines, ((0, 0), (1, 0)))  # each line begins with its filter type: 0, none
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(filtered.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def colours(count: int) -> RGB:
    """Distinct colours of shape (count, 3): Okabe-Ito, then lighter and darker shades of it, then again."""
    base = np.array([list(bytes.fromhex(code)) for code in _OKABE_ITO], dtype=float)
    shades = np.concatenate([base, base + 0.5 * (255 - base), base * 0.6]).round().astype(np.uint8)
    return shades[np.arange(count) % len(shades)]


def best_slice(labels: NDArray[np.integer[Any]], axis: int) -> int:
    """The index along an axis that shows the structures best; the middle where there are none.

    Each structure counts by the share of its own largest cross-section, so small ones weigh as much as
    large ones.
    """
    count = int(labels.max(initial=0)) + 1
    slices = np.moveaxis(labels, axis, 0)
    areas = np.stack([np.bincount(one.ravel(), minlength=count) for one in slices])[:, 1:]
    if not areas.any():
        return len(slices) // 2
    shares = areas / np.maximum(areas.max(axis=0), 1)
    return int(shares.sum(axis=1).argmax())


def overlay(
    image: NDArray[Any],
    labels: NDArray[np.integer[Any]] | None,
    spacing_mm: Sequence[float],
    *,
    axis: int = 2,
    index: int | None = None,
    window: tuple[float, float] | None = None,
    palette: RGB | None = None,
    size: int = 256,
) -> RGB:
    """Draw one slice as a radiologist sees it, with each structure outlined over a light fill.

    Axial: anterior is up and the patient's right is on the left. Coronal: superior is up, right is on the
    left. Sagittal: superior is up, anterior is on the left. Pixels are square in mm; black rims without
    labels are cut off.

    Args:
        image: Intensities of shape (i, j, k) in orientation RAS.
        labels: Labels of the same shape, 0 for background; None draws the image alone.
        spacing_mm: Voxel size along i, j, k.
        axis: The axis to look along: 0 sagittal, 1 coronal, 2 axial.
        index: The slice; None takes `best_slice`, or the middle without labels.
        window: The intensities drawn black and white; None takes the 0.5 and 99.5 percentiles of the slice.
        palette: Colours of shape (n, 3); label v gets row v - 1, and beyond n they repeat.
        size: Pixels of the longer side.

    Returns:
        A picture of shape (h, w, 3).

    Raises:
        FseftError: The shapes differ, or the slice lies outside the volume.
    """
    if labels is not None and labels.shape != image.shape:
        raise FseftError(f"labels of shape {labels.shape} on an image of shape {image.shape}")
    if index is None:
        index = image.shape[axis] // 2 if labels is None else best_slice(labels, axis)
    if not 0 <= index < image.shape[axis]:
        raise FseftError(f"slice {index} of {image.shape[axis]} along axis {axis}")
    column_mm, row_mm = (float(step) for at, step in enumerate(spacing_mm) if at != axis)
    scan = _windowed(_upright(image, axis, index), window)
    shown = np.zeros(scan.shape, int) if labels is None else _upright(labels, axis, index)
    content = _content((scan > _BLACK) | (shown > 0))
    scan, shown = scan[content], shown[content]
    down, across = _stretch(scan.shape, (row_mm, column_mm), size)
    picture = np.repeat((down @ scan @ across.T)[..., None] * 255, 3, axis=2)
    shades = colours(21) if palette is None else palette
    for value in np.unique(shown[shown > 0]):
        mask = down @ (shown == value).astype(float) @ across.T > 0.5
        _paint(picture, mask, shades[(int(value) - 1) % len(shades)])
    return picture.round().astype(np.uint8)


def _upright(volume: NDArray[Any], axis: int, index: int) -> NDArray[Any]:
    """A slice of a RAS volume as rows and columns of the picture: both axes of it shrink on the screen."""
    upright: NDArray[Any] = np.take(volume, index, axis)[::-1, ::-1].T
    return upright


def _windowed(scan: NDArray[Any], window: tuple[float, float] | None) -> NDArray[np.float64]:
    low, high = np.percentile(scan, (0.5, 99.5)) if window is None else window
    return np.clip((np.asarray(scan, dtype=float) - low) / max(high - low, 1e-6), 0, 1)


def _content(shown: NDArray[np.bool_]) -> tuple[slice, slice]:
    """The rows and columns that show something, with a rim; all of them where nothing does."""
    lines = [np.flatnonzero(shown.any(axis=axis)) for axis in (1, 0)]
    if not lines[0].size:
        return slice(None), slice(None)
    rows, columns = (slice(max(0, int(line[0]) - _RIM), int(line[-1]) + 1 + _RIM) for line in lines)
    return rows, columns


def _stretch(
    shape: tuple[int, ...], pixel_mm: tuple[float, float], size: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The two matrices that interpolate a slice linearly to square pixels, `size` along the longer side."""
    extents = [length * step for length, step in zip(shape, pixel_mm, strict=True)]
    down, across = (
        _interpolation(length, max(1, round(size * extent / max(extents))))
        for length, extent in zip(shape, extents, strict=True)
    )
    return down, across


def _interpolation(length: int, target: int) -> NDArray[np.float64]:
    """The matrix (target, length) of linear interpolation with the field of view kept."""
    places = (np.arange(target) + 0.5) * length / target - 0.5
    return np.stack([np.interp(places, np.arange(length), unit) for unit in np.eye(length)], axis=1)


def _paint(picture: NDArray[np.float64], mask: NDArray[np.bool_], colour: RGB) -> None:
    """Fill a mask lightly and draw its outline, within it, at full strength."""
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    picture[mask] += _FILL * (colour - picture[mask])
    picture[mask & ~inner] = colour


def side_by_side(pictures: Sequence[RGB], gap: int = 6) -> RGB:
    """Pictures of shape (h, w, 3) in a row, centred on black, with a gap of black pixels between them."""
    height = max(picture.shape[0] for picture in pictures)
    strips = []
    for at, picture in enumerate(pictures):
        missing = height - picture.shape[0]
        rows = (missing // 2, missing - missing // 2)
        strips.append(np.pad(picture, (rows, (gap if at else 0, 0), (0, 0))))
    return np.concatenate(strips, axis=1)


def curve_svg(
    series: Mapping[str, Sequence[tuple[float, float]]], *, x_label: str, y_label: str
) -> str:
    """Draw a small line chart as inline SVG; axes and text take the colour of the text around it.

    Args:
        series: Points (x, y) by name; what is not finite is left out.
        x_label: Name and unit of x.
        y_label: Name and unit of y.
    """
    lines = {
        name: [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
        for name, points in series.items()
    }
    points = [point for line in lines.values() for point in line] or [(0.0, 0.0), (1.0, 1.0)]
    x_ticks, y_ticks = (_ticks(min(values), max(values)) for values in zip(*points, strict=True))
    columns = max(1, 408 // (34 + 7 * max(map(len, lines), default=0)))
    top = 12 + _LEGEND_ROW * math.ceil(len(lines) / columns)
    frame = _Frame(
        x_ticks[0],
        x_ticks[-1],
        y_ticks[0],
        y_ticks[-1],
        left=58,
        right=466,
        top=top,
        bottom=top + 200,
    )
    title = f"{y_label} by {x_label}: {', '.join(lines)}"
    parts = _axes_svg(frame, x_ticks, y_ticks, x_label, y_label)
    for at, (name, line) in enumerate(lines.items()):
        row, column = divmod(at, columns)
        key = (frame.left + column * 408 / columns, 12 + row * _LEGEND_ROW)
        parts += _series_svg(frame, _stroke(at), key, name, line)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 480 {frame.bottom + 44:g}" role="img" '
        f'font-family="inherit" font-size="12" fill="currentColor"><title>{escape(title)}</title>'
        f"{''.join(parts)}</svg>"
    )


@dataclass(frozen=True)
class _Frame:
    """Where the values of a chart lie on the paper."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float
    left: float
    right: float
    top: float
    bottom: float

    def x(self, value: float) -> float:
        share = (value - self.x_low) / (self.x_high - self.x_low)
        return round(self.left + share * (self.right - self.left), 1)

    def y(self, value: float) -> float:
        share = (value - self.y_low) / (self.y_high - self.y_low)
        return round(self.bottom - share * (self.bottom - self.top), 1)


def _ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round values at steps of 1, 2 or 5 times a power of ten that enclose the range."""
    if high - low < 1e-9:  # as good as one value
        half = 0.5 * abs(low) if abs(low) > 1e-9 else 0.5
        low, high = low - half, high + half
    raw = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(at * step, 12) for at in range(first, last + 1)]


def _axes_svg(
    frame: _Frame, x_ticks: Sequence[float], y_ticks: Sequence[float], x_label: str, y_label: str
) -> list[str]:
    parts = []
    for value in y_ticks:
        y = frame.y(value)
        parts.append(
            f'<path d="M{frame.left} {y}H{frame.right}" stroke="currentColor" stroke-opacity=".15"/>'
            f'<text x="{frame.left - 8}" y="{y + 4}" text-anchor="end" opacity=".75">{value:g}</text>'
        )
    for value in x_ticks:
        x = frame.x(value)
        parts.append(
            f'<path d="M{x} {frame.bottom}v4" stroke="currentColor" stroke-opacity=".5"/>'
            f'<text x="{x}" y="{frame.bottom + 18}" text-anchor="middle" opacity=".75">{value:g}</text>'
        )
    middle = (frame.left + frame.right) / 2
    height = (frame.top + frame.bottom) / 2
    return [
        *parts,
        f'<path d="M{frame.left} {frame.bottom}H{frame.right}" stroke="currentColor" stroke-opacity=".5"/>',
        f'<text x="{middle}" y="{frame.bottom + 37}" text-anchor="middle">{escape(x_label)}</text>',
        f'<text transform="translate(14 {height})rotate(-90)" text-anchor="middle">{escape(y_label)}</text>',
    ]


def _stroke(at: int) -> str:
    """A colour for the series at a place, and dashes where the colours begin again."""
    dashes = ("none", "6 3", "2 3")[at // len(_ON_PAPER) % 3]
    return f'stroke="{_ON_PAPER[at % len(_ON_PAPER)]}" stroke-dasharray="{dashes}"'


def _series_svg(
    frame: _Frame,
    stroke: str,
    key: tuple[float, float],
    name: str,
    line: Sequence[tuple[float, float]],
) -> list[str]:
    places = [(frame.x(a), frame.y(b)) for a, b in line]
    # A dot is a line of no length with a round end: so it takes the colour of its line.
    dots = "".join(f"M{a} {b}h0" for a, b in places) if len(places) <= _DOTS else ""
    x, y = key
    return [
        f'<g fill="none" stroke-width="2" stroke-linejoin="round" {stroke}>',
        f'<path d="M{x:g} {y:g}h18"/><polyline points="{" ".join(f"{a},{b}" for a, b in places)}"/></g>',
        f'<path d="{dots}" stroke-width="6" stroke-linecap="round" {stroke}/>',
        f'<text x="{x + 24:g}" y="{y + 4:g}">{escape(name)}</text>',
    ]
