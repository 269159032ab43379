"""The class of each voxel of a new grid, from scores that arrive in slabs of the old one."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from fseft.volume.decision import decide
from fseft.volume.geometry import bounding_box
from fseft.volume.resample import (
    apply_matrices,
    axis_matrices,
    source_box,
    submatrices,
    target_region,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fseft.volume.resample import Array, Region, Shape

_NOWHERE: Region = (slice(0, 0),) * 3
_SLAB_BYTES = 32 << 20  # of scores in memory


class StreamedClasses:
    """Resamples scores that arrive in slabs, and finds the class of each voxel, as `decide` does.

    A class is resampled only where it may exceed the first class: in the box around the voxels
    where it does on the old grid. So many classes need hardly more memory or time than a few.

    Args:
        old: Shape (i, j, k) of all slabs together.
        shape: New (i, j, k).
        order: Channels in the order of writing; empty for the class of the highest score.
        with_scores: Whether the scores of all classes are yielded too, which takes longer.
    """

    def __init__(
        self,
        old: Sequence[int],
        shape: Shape,
        order: Sequence[int] = (),
        *,
        with_scores: bool = False,
    ) -> None:
        self._matrices = axis_matrices(old, shape, 1)
        self._order, self._with_scores = order, with_scores
        self._first_rows, self._last_rows = _source_rows(self._matrices[0], old[0])
        self._pending: Array | None = None
        self._first_row = 0  # of `_pending`
        self._plane = 0  # the next new one

    def add(self, slab: Array) -> Iterator[tuple[Region, Array, Array | None]]:
        """Yields what is complete with another slab.

        Args:
            slab: The next scores (C, rows, j, k) along the first axis, which are not modified.

        Yields:
            A part of the new grid, a few planes at a time; its class indices (planes, j, k), uint8,
            or uint16 for more than 256 classes; and its float32 scores (C, planes, j, k), if they
            were requested. Outside of all parts, the class is 0.
        """
        scores = slab if self._pending is None else np.concatenate([self._pending, slab], axis=1)
        known = self._first_row + scores.shape[1]
        stop = int(np.searchsorted(self._last_rows, known))
        regions = self._regions(scores, slice(self._plane, stop))
        for target in _few_planes(regions, len(scores) if self._with_scores else 1):
            if self._with_scores:
                part = self._resample(scores, target)
                yield target, decide(part, self._order), part
            else:
                yield target, self._classes(scores, regions, target), None
        kept = int(min([known, *self._first_rows[stop : stop + 1]]))
        self._pending = scores[:, kept - self._first_row :].copy()
        self._first_row, self._plane = kept, stop

    def _regions(self, scores: Array, planes: slice) -> dict[int, Region]:
        """Returns the new voxels, within some planes, where each class may exceed the first."""
        regions = {}
        for index, score in enumerate(scores[1:], start=1):
            mask = score > scores[0]
            if not mask.any():
                continue
            rows, *in_plane = bounding_box(mask).slices[1:]
            box = (_shifted(rows, self._first_row), *in_plane)
            first, *others = target_region(self._matrices, box)
            region = (_intersection(first, planes), *others)
            # A coarser grid may miss a few voxels altogether.
            if all(side.start < side.stop for side in region):
                regions[index] = region
        return regions

    def _resample(self, scores: Array, target: Region) -> Array:
        """Returns the scores (..., i, j, k) of a part of the new grid, as a new array."""
        box = source_box(self._matrices, target)
        rows, columns, depths = box
        local_rows = _shifted(rows, -self._first_row)
        part = scores[..., local_rows, columns, depths].astype(np.float32)
        matrices = submatrices(self._matrices, box, target)
        return apply_matrices(part, matrices)

    def _classes(self, scores: Array, regions: Mapping[int, Region], target: Region) -> Array:
        best = self._resample(scores[0], target)
        classes = np.zeros(best.shape, np.uint8 if len(scores) <= 256 else np.uint16)
        for index in self._order or regions:
            part = tuple(map(_intersection, regions.get(index, _NOWHERE), target))
            if any(side.start >= side.stop for side in part):
                continue
            score = self._resample(scores[index], part)
            inside = tuple(
                _shifted(side, -whole.start) for side, whole in zip(part, target, strict=True)
            )
            np.copyto(classes[inside], index, where=score > best[inside])
            if not self._order:
                np.maximum(best[inside], score, out=best[inside])
        return classes


def _few_planes(regions: Mapping[int, Region], classes: int) -> Iterator[Region]:
    """Yields parts of the region around others, with as many planes as fit `_SLAB_BYTES`."""
    if not regions:
        return
    first, *in_plane = (
        slice(min(side.start for side in sides), max(side.stop for side in sides))
        for sides in zip(*regions.values(), strict=True)
    )
    plane_size = prod(side.stop - side.start for side in in_plane)
    step = max(1, _SLAB_BYTES // (4 * classes * plane_size))
    for start in range(first.start, first.stop, step):
        yield slice(start, min(start + step, first.stop)), *in_plane


def _source_rows(matrix: Array | None, old: int) -> tuple[Array, Array]:
    """Returns the first and the last old row that each new plane depends on."""
    if matrix is None:
        return np.arange(old), np.arange(old)
    used = matrix != 0
    return used.argmax(axis=1), old - 1 - used[:, ::-1].argmax(axis=1)


def _shifted(side: slice, offset: int) -> slice:
    return slice(side.start + offset, side.stop + offset)


def _intersection(side: slice, other: slice) -> slice:
    return slice(max(side.start, other.start), min(side.stop, other.stop))
