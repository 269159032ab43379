"""Closed contours of the pixels of a mask."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from fseft.volume.geometry import Array

_STRAIGHT = 1e-6  # product of two edges on a line, in pixels


def slice_polygons(mask: Array) -> list[Array]:
    """Returns the closed contours of a mask; holes are joined to the contour around them.

    Args:
        mask: (j, k), bool.

    Returns:
        Polygons (points, 2) in pixels, without a repeated last point.
    """
    from skimage.measure import find_contours

    lines = find_contours(np.pad(mask, 1).astype(np.float32), 0.5)
    polygons = [_without_straight_points(line[:-1] - 1) for line in lines]
    areas = [_signed_area(polygon) for polygon in polygons]
    outer_sign = np.sign(max(areas, key=abs))
    outer = [item for item in zip(areas, polygons, strict=True) if item[0] * outer_sign > 0]
    outer.sort(key=lambda item: abs(item[0]))
    joined = [polygon for _, polygon in outer]
    originals = list(joined)
    for area, hole in zip(areas, polygons, strict=True):
        if area * outer_sign < 0:
            number = next(i for i, shape in enumerate(originals) if _contains(shape, hole[0]))
            joined[number] = _with_keyhole(joined[number], hole)
    return joined


def _without_straight_points(polygon: Array) -> Array:
    """Removes points on the straight line between their neighbours."""
    before = polygon - np.roll(polygon, 1, axis=0)
    after = np.roll(polygon, -1, axis=0) - polygon
    is_corner = np.abs(_cross(before, after)) > _STRAIGHT
    corners: Array = polygon[is_corner]
    return corners


def _signed_area(polygon: Array) -> float:
    following = np.roll(polygon, -1, axis=0)
    return float(_cross(polygon, following).sum() / 2)


def _cross(a: Array, b: Array) -> Array:
    """Returns the cross products of vectors (n, 2)."""
    (a0, a1), (b0, b1) = a.T, b.T
    product: Array = a0 * b1 - a1 * b0
    return product


def _contains(polygon: Array, point: Array) -> bool:
    """Returns whether a point is within a polygon, by the number of edges that a ray crosses."""
    y, x = point
    following = np.roll(polygon, -1, axis=0)
    is_crossed = (polygon[:, 0] > y) != (following[:, 0] > y)
    (y_first, x_first), (y_last, x_last) = polygon[is_crossed].T, following[is_crossed].T
    slope = (x_last - x_first) / (y_last - y_first)
    crossing = x_first + (y - y_first) * slope
    count = int(np.count_nonzero(crossing > x))
    return count % 2 == 1


def _with_keyhole(polygon: Array, hole: Array) -> Array:
    """Joins a hole to a polygon between their nearest points."""
    differences = polygon[:, None] - hole
    distances = np.linalg.norm(differences, axis=2)
    start, entry = divmod(int(distances.argmin()), len(hole))
    inner = np.roll(hole, -entry, axis=0)
    before, after = polygon[: start + 1], polygon[start:]
    return np.concatenate([before, inner, inner[:1], after])
