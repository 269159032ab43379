"""PNG pictures of image slices with their segmentation."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from fseft.errors import FseftError
from fseft.reporting.marks import draw_marks
from fseft.volume.label_values import consecutive

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    RGB = NDArray[np.uint8]

WINDOW_HU = (-160.0, 240.0)
"""Intensities of CT that are shown as black and white: the usual window of soft tissue."""
# Chosen one after the other from a grid of colours: each as far as possible, in OKLab, from those
# before it and from the colours of a comparison, seen normally and with each colour blindness.
_STRUCTURES = (
    *("5522ff", "bbffcc", "bb1100", "ffdd00", "884499", "00ee99", "ee5522"),
    *("8877ff", "99bb77", "338866", "bb33cc", "44aa66", "ffaacc", "ee22ee"),
    *("996699", "aa2277", "ccbbff", "bb5544", "99dd66", "77ffff", "ddff77"),
)
REFERENCE, PREDICTION, OTHER = (86, 180, 233), (230, 159, 0), (204, 121, 167)
"""Colours of a comparison: of the reference, of the prediction, and of pixels that both assign to
a structure, but not to the same. From Okabe & Ito 2008, for colour-blind readers."""
_FILL_OPACITY, _ERROR_OPACITY = 0.35, 0.5
_EDGES = {2: "RLAP", 1: "RLSI", 0: "APSI"}  # left, right, upper and lower edge by viewing direction
_AIR = 0.05  # fraction of the intensity window below which the rim of a slice is cut off
_MARGIN = 2  # pixels of air to keep around the body


def encode_png(rgb: RGB) -> bytes:
    """Encodes a picture as PNG.

    Args:
        rgb: Picture of shape (height, width, 3).
    """
    height, width, _ = rgb.shape
    rows = np.ascontiguousarray(rgb, dtype=np.uint8).reshape(height, width * 3)
    filtered = np.pad(rows, ((0, 0), (1, 0)))  # each row begins with its filter type: 0, none
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, RGB
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _png_chunk(b"IHDR", header),
            _png_chunk(b"IDAT", zlib.compress(filtered.tobytes(), 9)),
            _png_chunk(b"IEND", b""),
        )
    )


def _png_chunk(name: bytes, data: bytes) -> bytes:
    length = struct.pack(">I", len(data))
    checksum = struct.pack(">I", zlib.crc32(name + data))
    return length + name + data + checksum


def distinct_colours(count: int) -> RGB:
    """Returns distinguishable colours of structures, none of which is that of a comparison.

    Returns:
        Array of shape (count, 3); the colours repeat after 21.
    """
    codes = [list(bytes.fromhex(code)) for code in _STRUCTURES]
    colours = np.array(codes, np.uint8)
    return colours[np.arange(count) % len(colours)]


def best_slice(labels: NDArray[np.integer[Any]], axis: int) -> int:
    """Returns the index of the slice that shows the structures best.

    Each structure counts by its area relative to its largest cross-section, so that small
    structures weigh as much as large ones.

    Args:
        labels: Label map of shape (i, j, k).
        axis: Axis that the slices are perpendicular to.

    Returns:
        The index along the axis; the middle of a label map without structures.
    """
    numbers, values = consecutive(labels)
    slices = np.moveaxis(numbers, axis, 0)
    count = len(values) + 1
    areas = np.stack([np.bincount(plane.ravel(), minlength=count) for plane in slices])
    areas = areas[:, 1:]  # without background
    if not areas.any():
        return len(slices) // 2
    relative = areas / np.maximum(areas.max(axis=0), 1)
    return int(relative.sum(axis=1).argmax())


def draw_slice(
    image: NDArray[Any],
    labels: NDArray[np.integer[Any]] | None,
    spacing_mm: Sequence[float],
    *,
    axis: int = 2,
    index: int | None = None,
    window: tuple[float, float] | None = None,
    palette: RGB | None = None,
    reference: NDArray[np.integer[Any]] | None = None,
    marks: bool = False,
    size: int = 256,
) -> RGB:
    """Draws a slice in radiological orientation, each structure outlined over a translucent fill.

    With a reference, both label maps are outlined in the colours `PREDICTION` and `REFERENCE`
    instead, and pixels of one of them alone are filled with its colour.

    Axial: anterior is up and the patient's right is on the left. Coronal: superior is up, right is
    on the left. Sagittal: superior is up, anterior is on the left. Pixels are square in mm; dark
    rims without labels are cut off.

    Args:
        image: Intensities of shape (i, j, k) in orientation RAS.
        labels: Label map of the same shape, 0 for background; None draws the image only.
        spacing_mm: Voxel size along i, j, k.
        axis: Viewing direction: 0 sagittal, 1 coronal, 2 axial.
        index: Index of the slice. Default: `best_slice`, or the middle without labels.
        window: Intensities shown as black and white. Default: percentiles 0.5 and 99.5 of the
            slice.
        palette: Colours of shape (n, 3); label v has the colour v - 1, and beyond n they repeat.
        reference: Label map of the same shape to compare with.
        marks: Whether to draw the letters of the directions and a scale bar.
        size: Length of the longer side in pixels.

    Returns:
        A picture of shape (height, width, 3).

    Raises:
        FseftError: The shapes differ, or the slice is outside the volume.
    """
    if labels is None:
        labels = np.zeros(image.shape, np.uint8)
    if index is None:
        index = best_slice(labels, axis)
    _check_slice(image, labels, axis, index)
    grey = _apply_window(_upright(image, axis, index), window)
    structures = _upright(labels, axis, index)
    expected = structures if reference is None else _upright(reference, axis, index)
    body = _bounding_box((grey > _AIR) | (structures > 0) | (expected > 0))
    column_mm, row_mm = np.delete(np.asarray(spacing_mm, float), axis)
    canvas = _Canvas(grey[body], (row_mm, column_mm), size)
    if reference is None:
        canvas.draw(structures[body], palette)
    else:
        canvas.compare(structures[body], expected[body])
    picture = canvas.picture.round().astype(np.uint8)
    return draw_marks(picture, _EDGES[axis], canvas.pixel_mm) if marks else picture


def _check_slice(
    image: NDArray[Any], labels: NDArray[np.integer[Any]], axis: int, index: int
) -> None:
    if labels.shape != image.shape:
        raise FseftError(f"labels of shape {labels.shape} on an image of shape {image.shape}")
    if not 0 <= index < image.shape[axis]:
        raise FseftError(f"slice {index} of {image.shape[axis]} along axis {axis}")


class _Canvas:
    """A slice on square pixels, on which structures are drawn.

    Args:
        grey: Brightness from 0 to 1, of shape (rows, columns).
        pixel_mm: Height and width of a pixel of the slice.
        size: Length of the longer side of the picture in pixels.
    """

    def __init__(self, grey: NDArray[np.float64], pixel_mm: tuple[float, float], size: int) -> None:
        extents = np.array(grey.shape) * pixel_mm
        self.pixel_mm = float(extents.max()) / size
        pixels = np.round(size * extents / extents.max())
        height, width = np.maximum(1, pixels)
        rows, columns = grey.shape
        self._rows = _interpolation(rows, int(height))
        self._columns = _interpolation(columns, int(width))
        resized = 255 * self._resize(grey)
        self.picture = np.stack([resized] * 3, axis=2)

    def _resize(self, plane: NDArray[np.float64]) -> NDArray[np.float64]:
        resized: NDArray[np.float64] = self._rows @ plane @ self._columns.T
        return resized

    def draw(self, structures: NDArray[np.integer[Any]], palette: RGB | None) -> None:
        """Fills each structure of the slice lightly, and draws its outline within it."""
        from scipy.ndimage import binary_erosion

        palette = distinct_colours(21) if palette is None else palette
        picture = self.picture
        for value in np.unique(structures[structures > 0]):
            mask = self._resize((structures == value).astype(float)) > 0.5
            colour = palette[(int(value) - 1) % len(palette)]
            picture[mask] += _FILL_OPACITY * (colour - picture[mask])
            outline = mask & ~binary_erosion(mask)
            picture[outline] = colour

    def compare(
        self, prediction: NDArray[np.integer[Any]], reference: NDArray[np.integer[Any]]
    ) -> None:
        """Fills the pixels in which two label maps differ, and outlines both.

        The outline of the reference is around its structures, that of the prediction within, so
        that both are seen where they agree.
        """
        from scipy.ndimage import binary_dilation, binary_erosion

        predicted, expected = self._resized_labels(prediction), self._resized_labels(reference)
        self._fill((expected > 0) & (predicted == 0), REFERENCE)
        self._fill((predicted > 0) & (expected == 0), PREDICTION)
        self._fill((predicted > 0) & (expected > 0) & (predicted != expected), OTHER)
        for value in np.unique(expected[expected > 0]):
            mask = expected == value
            self.picture[binary_dilation(mask) & ~mask] = REFERENCE
        for value in np.unique(predicted[predicted > 0]):
            mask = predicted == value
            self.picture[mask & ~binary_erosion(mask)] = PREDICTION

    def _resized_labels(self, structures: NDArray[np.integer[Any]]) -> NDArray[np.integer[Any]]:
        resized = np.zeros(self.picture.shape[:2], structures.dtype)
        for value in np.unique(structures[structures > 0]):
            resized[self._resize((structures == value).astype(float)) > 0.5] = value
        return resized

    def _fill(self, mask: NDArray[np.bool_], colour: tuple[int, int, int]) -> None:
        self.picture[mask] += _ERROR_OPACITY * (colour - self.picture[mask])


def _upright(volume: NDArray[Any], axis: int, index: int) -> NDArray[Any]:
    """Returns a slice of a RAS volume as rows and columns of the picture."""
    plane: NDArray[Any] = np.take(volume, index, axis)
    return plane[::-1, ::-1].T


def _apply_window(plane: NDArray[Any], window: tuple[float, float] | None) -> NDArray[np.float64]:
    """Maps intensities to [0, 1]."""
    low, high = np.percentile(plane, (0.5, 99.5)) if window is None else window
    scale = max(high - low, 1e-6)
    relative = (plane.astype(float) - low) / scale
    return relative.clip(0, 1)


def _bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Returns the rows and columns of a mask, with a margin; all of them for an empty mask."""
    if not mask.any():
        return slice(None), slice(None)
    rows, columns = (np.asarray(mask.any(axis=axis)) for axis in (1, 0))
    return _extent(rows), _extent(columns)


def _extent(line: NDArray[np.bool_]) -> slice:
    indices = np.flatnonzero(line)
    first = int(indices[0]) - _MARGIN
    last = int(indices[-1]) + _MARGIN
    return slice(max(0, first), last + 1)


def _interpolation(length: int, target: int) -> NDArray[np.float64]:
    """Returns the matrix (target, length) of linear interpolation over the same field of view."""
    positions = (np.arange(target) + 0.5) * length / target - 0.5
    matrix = np.empty((target, length))
    for column, unit in enumerate(np.eye(length)):
        matrix[:, column] = np.interp(positions, np.arange(length), unit)
    return matrix


def side_by_side(pictures: Sequence[RGB], gap: int = 6) -> RGB:
    """Joins pictures in a row, centred vertically on black.

    Args:
        pictures: Pictures of shape (height, width, 3).
        gap: Pixels between two pictures.
    """
    height = max(picture.shape[0] for picture in pictures)
    strips = []
    for number, picture in enumerate(pictures):
        missing = height - picture.shape[0]
        rows = (missing // 2, missing - missing // 2)
        columns = (gap if number else 0, 0)
        strips.append(np.pad(picture, (rows, columns, (0, 0))))
    return np.concatenate(strips, axis=1)
