"""Implicit shapes on a deformed voxel grid: signed distances in mm, positive inside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.interpolate import CubicSpline

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    Float = NDArray[np.float32]
    Box = tuple[slice, slice, slice]

KEEP = -1  # label of a layer that changes the image only: a lesion, the content of a stomach
OUTSIDE = np.float32(-99.0)
_MARGIN_MM = 12.0  # of an ellipsoid's box on a deformed grid
_TUBE_MARGIN_MM = 10.0
_SPLINE_VARIANCE = 0.479  # of white coefficients, which a cubic B-spline preserves per axis


@dataclass(frozen=True)
class Shape:
    """A solid on a box of the grid.

    Attributes:
        box: Voxels of the box.
        distance: Signed distance to the surface in mm, positive inside.
    """

    box: Box
    distance: Float

    def within(self, *bounds: Float) -> Shape:
        """Returns the intersection with other solids, given as distances on the whole grid."""
        distance = self.distance
        for bound in bounds:
            distance = np.minimum(distance, bound[self.box])
        return Shape(self.box, distance)

    def grown(self, mm: float) -> Shape:
        """Returns the shape with its surface moved outwards, or inwards if negative."""
        return Shape(self.box, self.distance + np.float32(mm))


@dataclass(frozen=True)
class Grid:
    """Position of each voxel in the reference body.

    Attributes:
        x: Positions to the right in mm, (i, j, k).
        y: Positions to anterior in mm, (i, j, k).
        z: Positions to superior in mm, (i, j, k).
        spacing_mm: Voxel size.
    """

    x: Float
    y: Float
    z: Float
    spacing_mm: tuple[float, float, float]

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along each axis."""
        return self.x.shape

    def whole(self, distance: Float) -> Shape:
        """Returns the shape of a distance on the whole grid, cropped to its extent."""
        inside = distance > -max(self.spacing_mm)
        spans = []
        for axis in range(3):
            others = tuple({0, 1, 2} - {axis})
            spans.append(_span(np.asarray(inside.any(axis=others))))
        box = _box(spans)
        return Shape(box, distance[box])

    def spread(self, shape: Shape) -> Float:
        """Returns the distance to a shape on the whole grid, large and negative outside its box."""
        full = np.full(self.shape, OUTSIDE)
        full[shape.box] = shape.distance
        return full

    def noise(self, rng: np.random.Generator, wavelength_mm: float) -> Float:
        """Returns a smooth random field (i, j, k) of unit standard deviation.

        Args:
            rng: Source of the field.
            wavelength_mm: Distance of the coefficients, see `smooth_noise`.
        """
        return smooth_noise(rng, self.shape, self.spacing_mm, wavelength_mm)

    def box(self, low: ArrayLike, high: ArrayLike) -> Box:
        """Returns the voxels that may be between two corners of the reference body.

        Args:
            low: Smallest position (x, y, z) in mm.
            high: Largest position (x, y, z) in mm.
        """
        spans = []
        limits = zip((self.x, self.y, self.z), np.asarray(low), np.asarray(high), strict=True)
        for axis, (values, lowest, highest) in enumerate(limits):
            others = tuple({0, 1, 2} - {axis})
            above = values.max(axis=others) >= lowest
            below = values.min(axis=others) <= highest
            spans.append(_span(above & below))
        return _box(spans)


def point(x: float, y: float, z: float) -> NDArray[np.float64]:
    """Returns a position or displacement in the reference body, (3,).

    Args:
        x: To the right in mm.
        y: To anterior in mm.
        z: To superior in mm.
    """
    return np.array([x, y, z], float)


def ellipsoid(
    grid: Grid, centre: ArrayLike, radii: ArrayLike, axis: ArrayLike = (1.0, 0.0, 0.0)
) -> Shape:
    """Returns an ellipsoid.

    Args:
        grid: Grid of the body.
        centre: Centre in mm.
        radii: Radii in mm, along `axis`, near anterior, and perpendicular to both.
        axis: Direction of the first radius.
    """
    c, r = np.asarray(centre, np.float32), np.asarray(radii, np.float32)
    reach = r.max() + _MARGIN_MM
    box = grid.box(c - reach, c + reach)
    offset = _offset(grid, box, c)
    squared_norm = np.zeros_like(offset[0])
    squared_gradient = np.zeros_like(offset[0])
    for direction, radius in zip(_orthonormal_frame(axis), r, strict=True):
        scaled = _dot(direction, offset) / radius
        squared_norm += scaled * scaled
        squared_gradient += (scaled / radius) ** 2
    norm = np.sqrt(squared_norm)
    gradient = np.sqrt(squared_gradient + np.float32(1e-9))
    return Shape(box, norm * (1.0 - norm) / gradient)


def tube(grid: Grid, points: ArrayLike, radii: ArrayLike, steps: int = 3) -> Shape:
    """Returns a tube of varying radius along a smooth curve.

    Args:
        grid: Grid of the body.
        points: Points of the curve in mm, (n, 3).
        radii: Radius at each point in mm, or one radius.
        steps: Straight segments between two points.
    """
    p = np.asarray(points, float)
    r = np.asarray(radii, float)
    knots = np.arange(len(p))
    last = knots[-1]
    parameters = np.linspace(0, last, steps * last + 1)
    curve = CubicSpline(knots, p)(parameters)
    width = np.interp(parameters, knots, np.broadcast_to(r, len(p)))
    return _tube_of_cones(grid, curve, width)


def _tube_of_cones(grid: Grid, curve: NDArray[np.float64], width: NDArray[np.float64]) -> Shape:
    """Returns the union of cones between consecutive points (n, 3), with radii (n,)."""
    reach = width.max() + _TUBE_MARGIN_MM
    box = grid.box(curve.min(0) - reach, curve.max(0) + reach)
    distance = np.full([side.stop - side.start for side in box], OUTSIDE)
    for index in range(len(curve) - 1):
        segment = slice(index, index + 2)
        ends = curve[segment]
        part = grid.box(ends.min(0) - reach, ends.max(0) + reach)
        inner = _relative_box(part, box)
        cone = _cone(grid, part, ends, width[segment])
        distance[inner] = np.maximum(distance[inner], cone)
    return Shape(box, distance)


def smooth_noise(
    rng: np.random.Generator,
    shape: Sequence[int],
    spacing_mm: Sequence[float],
    wavelength_mm: float,
) -> Float:
    """Returns a random field of unit standard deviation: a cubic B-spline of random coefficients.

    Args:
        rng: Source of the coefficients.
        shape: Voxels (i, j, k).
        spacing_mm: Voxel size.
        wavelength_mm: Distance of the coefficients.
    """
    weights = []
    for size, mm in zip(shape, spacing_mm, strict=True):
        weights.append(_spline_weights(size, mm / wavelength_mm))
    coefficients = [matrix.shape[1] for matrix in weights]
    field = rng.standard_normal(coefficients).astype(np.float32)
    for matrix in weights:  # each product moves the next axis to the front
        field = np.tensordot(field, matrix, axes=(0, 1))
    std = np.float32(_SPLINE_VARIANCE**1.5)
    return np.asarray(field / std, np.float32)


def _spline_weights(count: int, step: float) -> Float:
    """Returns the matrix (voxels, coefficients) of a cubic B-spline along one axis."""
    positions = np.arange(count) * step
    last = int(np.ceil(positions[-1]))
    nodes = np.arange(last + 4) - 1
    differences = positions[:, None] - nodes[None]
    t = np.abs(differences)
    near = 2 / 3 - t**2 + t**3 / 2
    far = np.clip(2 - t, 0, None) ** 3 / 6
    weights = np.where(t < 1, near, far)
    return np.asarray(weights, np.float32)


def _cone(grid: Grid, box: Box, ends: NDArray[np.float64], radii: NDArray[np.float64]) -> Float:
    """Returns the distance to a cone with rounded ends, on a box."""
    start, end = ends
    direction = (end - start).astype(np.float32)
    offset = _offset(grid, box, start.astype(np.float32))
    squared_length = np.float32(direction @ direction + 1e-6)
    t = np.clip(_dot(direction, offset) / squared_length, 0, 1)
    x = offset[0] - t * direction[0]
    y = offset[1] - t * direction[1]
    z = offset[2] - t * direction[2]
    away = np.sqrt(x**2 + y**2 + z**2)
    first, last = radii
    growth = np.float32(last - first)
    radius = np.float32(first) + growth * t
    return np.asarray(radius - away, np.float32)


def _offset(grid: Grid, box: Box, centre: Float) -> tuple[Float, Float, Float]:
    """Returns the displacement of each voxel of a box from a centre, per axis, in mm."""
    x = grid.x[box] - centre[0]
    y = grid.y[box] - centre[1]
    z = grid.z[box] - centre[2]
    return x, y, z


def _dot(direction: Float, offset: tuple[Float, Float, Float]) -> Float:
    """Returns the scalar product of a vector and the displacement of each voxel."""
    x, y, z = offset
    product: Float = direction[0] * x + direction[1] * y + direction[2] * z
    return product


def _orthonormal_frame(axis: ArrayLike) -> Float:
    """Returns three orthonormal rows: `axis`, near anterior, and perpendicular to both."""
    first = np.asarray(axis, float) / np.linalg.norm(axis)
    reference = np.array([0, 1.0, 0])
    if abs(first[1]) > 0.9:
        reference = np.array([1.0, 0, 0])
    second = reference - (reference @ first) * first
    second /= np.linalg.norm(second)
    rows = [first, second, np.cross(first, second)]
    return np.stack(rows).astype(np.float32)


def _span(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """Returns the first and one past the last true element, or (0, 0)."""
    indices = np.flatnonzero(mask)
    if not indices.size:
        return 0, 0
    return int(indices[0]), int(indices[-1]) + 1


def _relative_box(part: Box, box: Box) -> Box:
    """Returns a box of the grid as a box of a larger box."""
    spans = []
    for inner, outer in zip(part, box, strict=True):
        spans.append((inner.start - outer.start, inner.stop - outer.start))
    return _box(spans)


def _box(spans: Sequence[tuple[int, int]]) -> Box:
    i, j, k = (slice(*span) for span in spans)
    return i, j, k
