"""Resampling of axis-aligned grids as three banded matrix products, one per axis.

The field of view is kept: the centre of new voxel n lies at (n + 0.5) * old / new - 0.5 of the old grid.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import permutations
from math import prod
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fseft.errors import FseftError
from fseft.volume.geometry import bounding_box

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Array: TypeAlias = NDArray[Any]
Region: TypeAlias = tuple[slice, ...]
"""Part of a grid: a slice per axis."""

NEGLIGIBLE = (
    1e-7  # float32 cannot tell weights below this from zero; dropping them makes operators banded
)
BAND = 32  # rows per product: measured best between wasted zeros and calls into BLAS
TIE = 1e-6  # rounding of the sum of the scores at a voxel
ARGMAX_BYTES = 32 << 20  # scores in flight


@lru_cache(maxsize=64)
def operator(old: int, new: int, order: Literal[1, 3]) -> Array:
    """The weights that take a line of `old` voxels to `new` voxels over the same extent.

    Equals `skimage.transform.resize(mode="edge", anti_aliasing=False)` along one axis. Order 3 is cubic
    B-spline interpolation, prefilter included (Unser, IEEE Signal Processing Magazine 16(6), 1999).

    Args:
        old: Length of the line.
        new: Length wanted.
        order: 1 for linear, 3 for cubic spline.

    Returns:
        Read-only float32 matrix (new, old); row n holds the weights of new voxel n.
    """
    from scipy.ndimage import zoom

    # Interpolation is linear in its input: the operator is what it makes of the unit vectors.
    weights = zoom(np.eye(old), (new / old, 1), order=order, mode="nearest", grid_mode=True)
    matrix = np.where(np.abs(weights) < NEGLIGIBLE, 0, weights).astype(np.float32)
    matrix.setflags(write=False)
    return matrix


def resample_image(array: Array, shape: Sequence[int], order: Literal[1, 3] = 3) -> Array:
    """Resample every channel; no value leaves the range that its channel had.

    Args:
        array: Image (C, i, j, k) of any real dtype.
        shape: New (i, j, k).
        order: 1 for linear, 3 for cubic spline.

    Returns:
        float32 image (C, *shape). Working memory is that of one channel.
    """
    operators = _operators(array.shape[1:], shape, order)
    result = np.empty((len(array), *shape), np.float32)
    for channel, out in zip(array, result, strict=True):
        out[:] = _product(channel.astype(np.float32, copy=False), operators)
        np.clip(out, channel.min(), channel.max(), out=out)  # splines overshoot at edges
    return result


def resample_labels(labels: Array, shape: Sequence[int]) -> Array:
    """Resample each label's indicator linearly and give every voxel its strongest label.

    Where one label holds more than half of a voxel this is nnU-Net's rule; elsewhere the strongest wins.
    Ties go to the larger label.

    Args:
        labels: Integers (i, j, k) from 0 to 65535, gaps allowed.
        shape: New (i, j, k).

    Returns:
        Labels (*shape) of the same dtype. Each label is worked on in its bounding box only.

    Raises:
        FseftError: The array does not hold labels.
    """
    boxes = _label_boxes(labels)
    operators = _operators(labels.shape, shape, 1)
    result = np.zeros(tuple(shape), labels.dtype)
    best, total = np.zeros(result.shape, np.float32), np.zeros(result.shape, np.float32)
    for label, box in boxes:
        region = _reached(operators, box)
        score = _product(
            (labels[box] == label).astype(np.float32), _between(operators, box, region)
        )
        total[region] += score
        wins = score >= best[region]
        np.copyto(best[region], score, where=wins)
        np.copyto(result[region], label, where=wins)
    # Rows sum to one: what the labels leave over is the score of the background.
    background = np.subtract(1, total, out=total)
    background -= best
    result[background > TIE] = 0
    return result


def resample_scores(
    scores: Array, shape: Sequence[int], *, region: Region | None = None, slab: int = 8
) -> Iterator[tuple[Region, Array]]:
    """Resample class scores linearly, a few planes at a time: the whole is never held.

    Args:
        scores: Scores (C, i, j, k), floating.
        shape: New (i, j, k).
        region: The part of the new grid that is wanted; all of it if none is given.
        slab: Planes along axis i per step.

    Yields:
        A part of the new grid, and its float32 scores (C, planes, j, k).
    """
    operators = _operators(scores.shape[1:], shape, 1)
    wanted, *in_plane = region or tuple(slice(0, side) for side in shape)
    for start in range(wanted.start, wanted.stop, slab):
        planes = (slice(start, min(start + slab, wanted.stop)), *in_plane)
        box, local = _sources(operators, planes)
        part = scores[(slice(None), *box)].astype(
            np.float32
        )  # a copy: the caller may write into it
        yield planes, _product(part, local)


def resampled_argmax(scores: Array, shape: Sequence[int]) -> Iterator[tuple[Region, Array, Array]]:
    """The strongest class of every voxel of the grid `shape`, a few planes at a time; the first of equal ones.

    Args:
        scores: Scores (C, i, j, k), floating.
        shape: New (i, j, k).

    Yields:
        A part of the grid, its class indices (planes, j, k), uint8, or uint16 for more than 256 classes, and its
        float32 scores (C, planes, j, k). Class 0 is the strongest of all that is left out.
    """
    beaten = np.zeros(scores.shape[1:], bool)
    for one in scores[1:]:
        beaten |= one > scores[0]
    region = _reached(_operators(beaten.shape, shape, 1), bounding_box(beaten).slices[1:])
    plane = prod(side.stop - side.start for side in region[1:])
    if not beaten.any() or plane == 0:  # a coarser grid may pass over a few voxels
        return
    slab = max(1, ARGMAX_BYTES // (4 * len(scores) * plane))
    for planes, part in resample_scores(scores, shape, region=region, slab=slab):
        yield planes, _strongest(part), part


def _strongest(part: Array) -> Array:
    """The strongest class of scores (C, i, j, k)."""
    result = np.zeros(part.shape[1:], np.uint8 if len(part) <= 256 else np.uint16)
    best: Array = part[0].copy()
    for label in range(1, len(part)):
        np.copyto(result, label, where=part[label] > best)
        np.maximum(best, part[label], out=best)
    return result


def _operators(old: Sequence[int], new: Sequence[int], order: Literal[1, 3]) -> list[Array | None]:
    """One operator per axis; None where the axis stays as it is."""
    return [None if n == m else operator(n, m, order) for n, m in zip(old, new, strict=True)]


def _product(array: Array, operators: Sequence[Array | None]) -> Array:
    """Apply operators to the last three axes, in the order that takes the least work."""
    todo = [
        (axis, matrix)
        for axis, matrix in zip((-3, -2, -1), operators, strict=True)
        if matrix is not None
    ]
    for axis, matrix in min(permutations(todo), key=lambda steps: _work(array.shape, steps)):
        array = _along(array, matrix, axis)
    return array


def _work(shape: Sequence[int], steps: Sequence[tuple[int, Array]]) -> int:
    """Voxels read and written by these steps in this order."""
    size, work = list(shape), 0
    for axis, matrix in steps:
        work += prod(size)
        size[axis] = len(matrix)
        work += prod(size)
    return work


def _along(array: Array, matrix: Array, axis: int) -> Array:
    """Multiply one axis by a banded matrix, a band of rows at a time."""
    axis %= array.ndim
    before, after = array.shape[:axis], array.shape[axis + 1 :]
    result = np.empty((*before, len(matrix), *after), np.float32)
    source = array.reshape(prod(before), array.shape[axis], prod(after))
    target = result.reshape(prod(before), len(matrix), prod(after))
    for start in range(0, len(matrix), BAND):
        rows = slice(start, start + BAND)
        columns = _extent(matrix[rows], along=1)
        weights = matrix[rows, columns]
        if prod(after) == 1:  # one large product instead of many matrix-vector ones
            np.matmul(source[:, columns, 0], weights.T, out=target[:, rows, 0])
        else:
            np.matmul(weights, source[:, columns], out=target[:, rows])
    return result


def _extent(matrix: Array, *, along: Literal[0, 1]) -> slice:
    """The smallest slice of rows (along 0) or of columns (along 1) that holds every weight."""
    places = np.flatnonzero(matrix.any(axis=1 - along))
    return slice(int(places[0]), int(places[-1]) + 1) if places.size else slice(0, 0)


def _reached(operators: Sequence[Array | None], box: Sequence[slice]) -> Region:
    """The new voxels that a box of old ones reaches."""
    pairs = zip(operators, box, strict=True)
    return tuple(
        part if matrix is None else _extent(matrix[:, part], along=0) for matrix, part in pairs
    )


def _sources(
    operators: Sequence[Array | None], region: Region
) -> tuple[Region, list[Array | None]]:
    """The old voxels that new ones are made of, and the operators between the two."""
    pairs = list(zip(operators, region, strict=True))
    box = tuple(
        rows if matrix is None else _extent(matrix[rows], along=1) for matrix, rows in pairs
    )
    return box, _between(operators, box, region)


def _between(
    operators: Sequence[Array | None], box: Sequence[slice], region: Region
) -> list[Array | None]:
    """The operators from a box of old voxels to new ones."""
    parts = zip(operators, box, region, strict=True)
    return [None if matrix is None else matrix[rows, columns] for matrix, columns, rows in parts]


def _label_boxes(labels: Array) -> list[tuple[int, tuple[slice, ...]]]:
    """Every label above 0 with its bounding box, ascending."""
    from scipy.ndimage import find_objects

    if labels.dtype.kind not in "iu":
        raise FseftError(
            f"labels are whole numbers, not {labels.dtype}",
            hint="Convert the label image to integers.",
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high > 65535:
        raise FseftError(
            f"labels run from {low} to {high}", hint="Labels must lie between 0 and 65535."
        )
    return [
        (label, box) for label, box in enumerate(find_objects(labels), start=1) if box is not None
    ]
