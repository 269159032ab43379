"""The values of label maps. Time and memory do not depend on how large a value is.

Atlases number structures in hundreds of millions, and one damaged voxel may hold any number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy.typing as npt
    from numpy.typing import DTypeLike

    Array = npt.NDArray[Any]

MAX_VALUE = np.iinfo(np.uint32).max
"""The largest label value that is read."""

UNANNOTATED = 65_535
"""Value of voxels that are not annotated, after a label file is read; it never is a structure."""

IGNORED = -1
"""Value of voxels that are not annotated, where labels are numbers of structures."""

_MAX_TABLE = 1 << 16  # length of the longest table with a row for every value
_CHUNK = 1 << 20  # voxels at a time: NumPy's indices take 8 bytes each


def present_values(labels: Array) -> list[int]:
    """Returns the label values that occur, ascending, without the background.

    Args:
        labels: Integers from 0 on, of any shape.

    Examples:
        >>> present_values(np.array([0, 312_782_546, 7, 7]))
        [7, 312782546]
        >>> present_values(np.array([1, 2]))
        [1, 2]
    """
    largest = int(labels.max(initial=0))
    if largest >= _MAX_TABLE:
        return [int(value) for value in np.unique(labels) if value]
    occurs = np.zeros(largest + 1, bool)
    for part in _chunks(labels):
        occurs[part] = True
    return [int(value) for value in np.flatnonzero(occurs) if value]


def consecutive(labels: Array) -> tuple[Array, list[int]]:
    """Renumbers label values by their rank: 1, 2, ...; the background remains 0.

    Args:
        labels: Integers from 0 on, of any shape.

    Returns:
        The numbers, in the smallest unsigned integer type, and the values that occur, ascending.

    Examples:
        >>> numbers, values = consecutive(np.array([0, 312_782_546, 7, 7]))
        >>> numbers.tolist(), values
        ([0, 2, 1, 1], [7, 312782546])
    """
    values = present_values(labels)
    numbers = {value: number for number, value in enumerate(values, start=1)}
    return translate(labels, numbers, np.min_scalar_type(len(values))), values


def label_volumes(labels: Array, voxel_volume_mm3: float) -> dict[int, float]:
    """Returns the volume in ml of each label value that occurs, ascending, without the background.

    Args:
        labels: Integers from 0 on, of any shape.
        voxel_volume_mm3: Volume of a voxel.

    Examples:
        >>> label_volumes(np.array([0, 7, 7, 2]), 500.0)
        {2: 0.5, 7: 1.0}
    """
    numbers, values = consecutive(labels)
    counts = np.bincount(numbers.ravel(), minlength=len(values) + 1)
    volumes_ml = counts[1:] * voxel_volume_mm3 / 1000
    return dict(zip(values, volumes_ml.tolist(), strict=True))


def label_boxes(labels: Array) -> dict[int, tuple[slice, ...]]:
    """Returns the bounding box of each label value that occurs, ascending, without the background.

    Args:
        labels: Integers from 0 on, of any shape.

    Examples:
        >>> label_boxes(np.array([0, 0, 70_000, 70_000, 0]))
        {70000: (slice(2, 4, None),)}
    """
    from scipy.ndimage import find_objects

    if labels.max(initial=0) < _MAX_TABLE:
        boxes = enumerate(find_objects(labels), start=1)
        return {value: box for value, box in boxes if box is not None}
    numbers, values = consecutive(labels)
    return dict(zip(values, find_objects(numbers), strict=True))


def translate(labels: Array, new_values: Mapping[int, int], dtype: DTypeLike) -> Array:
    """Replaces label values; those without a new value become 0.

    Args:
        labels: Integers from 0 on, of any shape.
        new_values: Old value -> new value.
        dtype: Data type of the result.

    Examples:
        >>> translate(np.array([0, 1, 2, 70_000]), {1: 5, 70_000: 6}, np.uint8).tolist()
        [0, 5, 0, 6]
    """
    largest = int(labels.max(initial=0))
    known = sorted(old for old in new_values if old <= largest)
    old = np.array([0, *known])
    new = np.array([0, *map(new_values.__getitem__, known)], dtype)
    lookup = _table(old, new, largest) if largest < _MAX_TABLE else _search(old, new)
    result = np.empty(labels.size, dtype)
    for part, target in zip(_chunks(labels), _chunks(result), strict=True):
        target[:] = lookup(part)
    return result.reshape(labels.shape)


def as_numbers(stored: Array) -> Array:
    """Returns labels as int64 numbers of structures, `IGNORED` where they are `UNANNOTATED`.

    Args:
        stored: Numbers of structures from 0 on, and `UNANNOTATED`, of any shape.
    """
    numbers = stored.astype(np.int64)
    numbers[numbers == UNANNOTATED] = IGNORED
    return numbers


def _table(old: Array, new: Array, largest: int) -> Callable[[Array], Array]:
    """Returns a translation by a table of all values up to the largest."""
    table = np.zeros(largest + 1, new.dtype)
    table[old] = new
    return table.__getitem__


def _search(old: Array, new: Array) -> Callable[[Array], Array]:
    """Returns a translation by a binary search among the ascending old values."""

    def lookup(labels: Array) -> Array:
        index = np.searchsorted(old, labels, side="right") - 1
        is_known = old[index] == labels
        return np.where(is_known, new[index], 0)

    return lookup


def _chunks(array: Array) -> Iterator[Array]:
    """Yields a flat array in parts; views, if the array is contiguous."""
    flat = array.reshape(-1)
    for start in range(0, flat.size, _CHUNK):
        yield flat[start : start + _CHUNK]
