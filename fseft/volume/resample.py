"""Resampling of axis-aligned grids as three banded matrix products, one per axis.

A new shape of plain numbers preserves the field of view: the centre of new voxel n is at
(n + 0.5) * old / new - 0.5 of the old grid. An `AxisSampling` puts the voxels elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations
from math import prod
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fseft.errors import FseftError
from fseft.volume.label_values import UNANNOTATED, label_boxes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Array: TypeAlias = NDArray[Any]
Region: TypeAlias = tuple[slice, ...]
"""Part of a grid: one slice per axis."""
Order: TypeAlias = Literal[0, 1, 3]
"""0 for nearest neighbour, 1 for linear, 3 for cubic splines."""

_MIN_WEIGHT = 1e-7  # smaller weights are zero in float32; without them the matrices are banded
_MIN_SHARE = 1e-4  # of a new voxel; an old voxel that covers less only touches it
_BAND_ROWS = 32  # per matrix product: measured optimum of wasted zeros and calls of BLAS
_SAME_POSITION = 1e-6  # voxels; a smaller difference is a rounding error of the grids
_ROUNDING = 1e-6  # of the sum of the scores at a voxel


@dataclass(frozen=True)
class AxisSampling:
    """Positions of new voxels on an axis: voxel n is at `first + n * step` of the old grid.

    Attributes:
        size: Number of new voxels.
        first: Position of the first one, in old voxels from the centre of the first old one.
        step: Distance between two, in old voxels.
    """

    size: int
    first: float
    step: float

    @classmethod
    def same_field_of_view(cls, old: int, new: int) -> AxisSampling:
        """Returns the positions of `new` voxels that together cover `old` voxels.

        Args:
            old: Voxels along the axis.
            new: Voxels along the axis after resampling.
        """
        return cls(new, (old / new - 1) / 2, old / new)

    def is_identity(self, old: int) -> bool:
        """Whether the new voxels are the old ones."""
        last = self.first + (self.size - 1) * self.step
        first_moves = abs(self.first)
        last_moves = abs(last - (old - 1))
        moves = max(first_moves, last_moves)
        return self.size == old and moves < _SAME_POSITION


Shape: TypeAlias = "Sequence[int | AxisSampling]"
"""Voxels along each axis of a new grid, or their positions."""


@lru_cache(maxsize=64)
def interpolation_matrix(old: int, new: int | AxisSampling, order: Order) -> Array:
    """Returns the matrix that interpolates a line of `old` voxels at new voxels.

    The outer voxels are repeated beyond the edges. For a number of new voxels it equals
    `skimage.transform.resize(mode="edge", anti_aliasing=False)` along one axis. Order 3 is cubic
    B-spline interpolation with prefilter (Unser, IEEE Signal Processing Magazine 16(6), 1999).

    Args:
        old: Voxels along the axis.
        new: Voxels along the axis after resampling, or their positions.
        order: 0 for nearest neighbour, 1 for linear, 3 for cubic spline.

    Returns:
        Read-only float32 matrix (new, old); row n contains the weights of new voxel n.
    """
    from scipy.ndimage import affine_transform

    axis = new if isinstance(new, AxisSampling) else AxisSampling.same_field_of_view(old, new)
    # Interpolation is linear in its input: the matrix consists of the interpolated unit vectors.
    weights = affine_transform(
        np.eye(old),
        (axis.step, 1),
        offset=(axis.first, 0),
        output_shape=(axis.size, old),
        order=order,
        mode="nearest",
    )
    weights[np.abs(weights) < _MIN_WEIGHT] = 0
    matrix: Array = weights.astype(np.float32)
    matrix.setflags(write=False)
    return matrix


def resample_image(array: Array, shape: Shape, order: Order | Sequence[Order] = 3) -> Array:
    """Resamples every channel, within the range of its values.

    Args:
        array: Image (C, i, j, k) of any real dtype.
        shape: New (i, j, k).
        order: 0 for nearest neighbour, 1 for linear, 3 for cubic spline; also one per axis.

    Returns:
        float32 image of the new shape. The temporary memory is that of one channel.

    Examples:
        >>> import numpy as np
        >>> line = np.array([0.0, 10.0]).reshape(1, 2, 1, 1)
        >>> resample_image(line, (4, 1, 1), order=1).ravel().tolist()
        [0.0, 2.5, 7.5, 10.0]
    """
    matrices = axis_matrices(array.shape[1:], shape, order)
    result = np.empty((len(array), *_sizes(shape)), np.float32)
    for channel, resampled in zip(array, result, strict=True):
        values = channel.astype(np.float32, copy=False)
        resampled[:] = apply_matrices(values, matrices)
        # Splines overshoot at edges.
        np.clip(resampled, channel.min(), channel.max(), out=resampled)
    return result


def resample_labels(labels: Array, shape: Shape) -> Array:
    """Resamples the one-hot encoding linearly, and takes the label of the highest score.

    If one label covers more than half of a voxel, this is nnU-Net's rule. Ties go to the larger
    label. In labels that are annotated in part, a new voxel is annotated if any annotated voxel
    maps into it, and has the label of the largest share of these.

    Args:
        labels: Integers (i, j, k) from 0 on; not all need to occur.
        shape: New (i, j, k).

    Returns:
        Labels of the new shape and the same dtype. Each is processed in its bounding box only.

    Raises:
        FseftError: The array does not contain labels.
    """
    _check_labels(labels)
    boxes = label_boxes(labels)
    if boxes.pop(UNANNOTATED, None) is None:
        return _highest_score(labels, boxes, axis_matrices(labels.shape, shape, 1), _sizes(shape))
    axes = [_annotated_axis(size, axis) for size, axis in zip(labels.shape, shape, strict=True)]
    matrices, reach = zip(*axes, strict=True)
    annotated = (labels != UNANNOTATED).astype(np.float32)
    share = apply_matrices(annotated, matrices)
    result = _highest_score(labels, boxes, matrices, _sizes(shape), share)
    result[apply_matrices(annotated, reach) == 0] = UNANNOTATED
    return result


def _annotated_axis(old: int, new: int | AxisSampling) -> tuple[Array, Array] | tuple[None, None]:
    """Returns two matrices (new, old): the weights of old voxels, and 1 where one maps into a new.

    On a coarser axis, the weights are the shares of the new voxel that old voxels cover: a linear
    interpolation would leave some of them out. None for an axis whose voxels stay.
    """
    if _stays(old, new):
        return None, None
    axis = new if isinstance(new, AxisSampling) else AxisSampling.same_field_of_view(old, new)
    if axis.step <= 1:
        return interpolation_matrix(old, axis, 1), interpolation_matrix(old, axis, 0)
    centres = axis.first + axis.step * np.arange(axis.size)[:, None]
    edges = np.arange(old + 1) - 0.5
    edges[0], edges[-1] = -np.inf, np.inf  # the outer voxels are repeated
    below = np.clip((edges - centres) / axis.step, -0.5, 0.5)
    shares = np.diff(below, axis=1)
    shares[shares < _MIN_SHARE] = 0
    return shares.astype(np.float32), (shares > 0).astype(np.float32)


def _highest_score(
    labels: Array,
    boxes: Mapping[int, Region],
    matrices: Sequence[Array | None],
    sizes: tuple[int, ...],
    share: Array | float = 1,
) -> Array:
    """Returns the label of the highest score; `share` is the sum of the scores at each voxel."""
    result = np.zeros(sizes, labels.dtype)
    best = np.zeros(sizes, np.float32)
    total = np.zeros(sizes, np.float32)
    for label, box in boxes.items():
        region = target_region(matrices, box)
        mask = (labels[box] == label).astype(np.float32)
        score = apply_matrices(mask, submatrices(matrices, box, region))
        total[region] += score
        wins = score >= best[region]
        np.copyto(best[region], score, where=wins)
        np.copyto(result[region], label, where=wins)
    # The rest of the sum is the score of the background.
    background = np.subtract(share, total, out=total)
    background -= best
    result[background > _ROUNDING * share] = 0
    return result


def resample_scores(
    scores: Array, shape: Shape, *, region: Region | None = None, slab: int = 8
) -> Iterator[tuple[Region, Array]]:
    """Resamples class scores linearly, a few planes at a time, to save memory.

    Args:
        scores: Floating-point scores (C, i, j, k).
        shape: New (i, j, k).
        region: Part of the new grid to compute; by default all.
        slab: Planes along axis i per step.

    Yields:
        A part of the new grid, and its float32 scores (C, planes, j, k), which may be modified.
    """
    matrices = axis_matrices(scores.shape[1:], shape, 1)
    first_axis, *in_plane = region or tuple(slice(0, side) for side in _sizes(shape))
    for start in range(first_axis.start, first_axis.stop, slab):
        planes = slice(start, min(start + slab, first_axis.stop))
        target = (planes, *in_plane)
        box = source_box(matrices, target)
        part = scores[(slice(None), *box)].astype(np.float32)
        yield target, apply_matrices(part, submatrices(matrices, box, target))


def _sizes(shape: Shape) -> tuple[int, ...]:
    return tuple(axis.size if isinstance(axis, AxisSampling) else axis for axis in shape)


def axis_matrices(
    old: Sequence[int], new: Shape, order: Order | Sequence[Order]
) -> list[Array | None]:
    """Returns one interpolation matrix per axis, None for an axis whose voxels stay."""
    orders = (order,) * len(old) if isinstance(order, int) else order
    return [
        None if _stays(size, axis) else interpolation_matrix(size, axis, axis_order)
        for size, axis, axis_order in zip(old, new, orders, strict=True)
    ]


def _stays(old: int, new: int | AxisSampling) -> bool:
    return new.is_identity(old) if isinstance(new, AxisSampling) else new == old


def apply_matrices(array: Array, matrices: Sequence[Array | None]) -> Array:
    """Multiplies the last three axes by matrices, in the order of least work."""
    steps = [
        (axis, matrix)
        for axis, matrix in zip((-3, -2, -1), matrices, strict=True)
        if matrix is not None
    ]
    order = min(permutations(steps), key=lambda steps: _work(array.shape, steps))
    for axis, matrix in order:
        array = _multiply_axis(array, matrix, axis)
    return array


def _work(shape: Sequence[int], steps: Sequence[tuple[int, Array]]) -> int:
    """Returns the number of voxels that these steps read and writes in this order."""
    size, work = list(shape), 0
    for axis, matrix in steps:
        work += prod(size)
        size[axis] = len(matrix)
        work += prod(size)
    return work


def _multiply_axis(array: Array, matrix: Array, axis: int) -> Array:
    """Multiplies one axis by a banded matrix, a band of rows at a time."""
    axis %= array.ndim
    outer, inner = prod(array.shape[:axis]), prod(array.shape[axis + 1 :])
    source = array.reshape(outer, array.shape[axis], inner)
    target = np.empty((outer, len(matrix), inner), np.float32)
    for start in range(0, len(matrix), _BAND_ROWS):
        rows = slice(start, start + _BAND_ROWS)
        columns = _nonzero_slice(matrix[rows], axis=1)
        weights = matrix[rows, columns]
        if inner == 1:  # one large product instead of many of a matrix and a vector
            np.matmul(source[:, columns, 0], weights.T, out=target[:, rows, 0])
        else:
            np.matmul(weights, source[:, columns], out=target[:, rows])
    shape = list(array.shape)
    shape[axis] = len(matrix)
    return target.reshape(shape)


def _nonzero_slice(matrix: Array, *, axis: Literal[0, 1]) -> slice:
    """Returns the smallest slice of rows (axis 0) or columns (axis 1) with all nonzero weights."""
    nonzero = np.flatnonzero(matrix.any(axis=1 - axis))
    if not nonzero.size:
        return slice(0, 0)
    return slice(int(nonzero[0]), int(nonzero[-1]) + 1)


def target_region(matrices: Sequence[Array | None], box: Sequence[slice]) -> Region:
    """Returns the new voxels that depend on a box of old voxels."""
    pairs = zip(matrices, box, strict=True)
    return tuple(
        columns if matrix is None else _nonzero_slice(matrix[:, columns], axis=0)
        for matrix, columns in pairs
    )


def source_box(matrices: Sequence[Array | None], region: Region) -> Region:
    """Returns the old voxels on which a region of new voxels depends."""
    pairs = zip(matrices, region, strict=True)
    return tuple(
        rows if matrix is None else _nonzero_slice(matrix[rows], axis=1) for matrix, rows in pairs
    )


def submatrices(
    matrices: Sequence[Array | None], box: Sequence[slice], region: Region
) -> list[Array | None]:
    """Returns the parts of the matrices from a box of old voxels to a region of new voxels."""
    submatrices = []
    for matrix, columns, rows in zip(matrices, box, region, strict=True):
        submatrix = None if matrix is None else matrix[rows, columns]
        submatrices.append(submatrix)
    return submatrices


def _check_labels(labels: Array) -> None:
    """Refuses arrays that contain no labels."""
    if labels.dtype.kind not in "iu":
        cause = f"labels must be integers, not {labels.dtype}"
        raise FseftError(cause, hint="Convert the label map to integers.")
    if labels.min() < 0:
        cause = f"labels range from {labels.min()} to {labels.max()}"
        raise FseftError(cause, hint="Number labels from 0 on.")
