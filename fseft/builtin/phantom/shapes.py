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

KEEP = -1  # the label of what changes the image only: a lesion, the content of a stomach
OUTSIDE = np.float32(-99.0)


@dataclass(frozen=True)
class Shape:
    """A solid: its signed distance, in mm and positive inside, on a box of the grid."""

    box: Box
    distance: Float

    def within(self, *bounds: Float) -> Shape:
        """This shape cut by other solids, given as distances on the whole grid."""
        distance = self.distance
        for bound in bounds:
            distance = np.minimum(distance, bound[self.box])
        return Shape(self.box, distance)

    def grown(self, mm: float) -> Shape:
        """This shape with its surface moved outwards (inwards if negative)."""
        return Shape(self.box, self.distance + np.float32(mm))


@dataclass(frozen=True)
class Grid:
    """Where each voxel lies in the reference body, in mm: x to the right, y to anterior, z to superior."""

    x: Float
    y: Float
    z: Float
    spacing_mm: tuple[float, float, float]

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along each axis."""
        return self.x.shape

    def whole(self, distance: Float) -> Shape:
        """A shape that is given on the whole grid, cropped to where it is."""
        where = distance > -max(self.spacing_mm)
        axes = [np.flatnonzero(where.any(axis=tuple({0, 1, 2} - {a}))) for a in range(3)]
        box = _box([(int(a[0]), int(a[-1]) + 1) if a.size else (0, 0) for a in axes])
        return Shape(box, distance[box])

    def spread(self, shape: Shape) -> Float:
        """The distance to a shape on the whole grid, far outside where the shape does not say."""
        full = np.full(self.shape, OUTSIDE)
        full[shape.box] = shape.distance
        return full

    def noise(self, rng: np.random.Generator, wavelength_mm: float) -> Float:
        """A smooth random field of unit deviation."""
        return smooth_noise(rng, self.shape, self.spacing_mm, wavelength_mm)

    def box(self, low: ArrayLike, high: ArrayLike) -> Box:
        """The voxels that may lie between two corners of the reference body."""
        spans = []
        for axis, (values, lo, hi) in enumerate(
            zip((self.x, self.y, self.z), np.asarray(low), np.asarray(high), strict=True)
        ):
            others = tuple({0, 1, 2} - {axis})
            hit = np.flatnonzero((values.max(axis=others) >= lo) & (values.min(axis=others) <= hi))
            spans.append((int(hit[0]), int(hit[-1]) + 1) if hit.size else (0, 0))
        return _box(spans)


def point(x: float, y: float, z: float) -> NDArray[np.float64]:
    """A place or a way in the reference body, in mm."""
    return np.array([x, y, z], float)


def ellipsoid(
    grid: Grid, centre: ArrayLike, radii: ArrayLike, axis: ArrayLike = (1.0, 0.0, 0.0)
) -> Shape:
    """An ellipsoid whose first radius lies along `axis` and its second as near to anterior as it can."""
    c, r = np.asarray(centre, np.float32), np.asarray(radii, np.float32)
    reach = r.max() + 12.0
    box = grid.box(c - reach, c + reach)
    offset = (grid.x[box] - c[0], grid.y[box] - c[1], grid.z[box] - c[2])
    outer = np.zeros_like(offset[0])
    steep = np.zeros_like(offset[0])
    for direction, radius in zip(_frame(axis), r, strict=True):
        along = (
            direction[0] * offset[0] + direction[1] * offset[1] + direction[2] * offset[2]
        ) / radius
        outer += along * along
        steep += (along / radius) ** 2
    norm = np.sqrt(outer)
    return Shape(box, norm * (1.0 - norm) / np.sqrt(steep + np.float32(1e-9)))


def tube(grid: Grid, points: ArrayLike, radii: ArrayLike, steps: int = 3) -> Shape:
    """A tube with a varying radius along a smooth curve through the points."""
    p, r = np.asarray(points, float), np.asarray(radii, float)
    knots = np.linspace(0, len(p) - 1, steps * (len(p) - 1) + 1)
    curve = CubicSpline(np.arange(len(p)), p)(knots)
    width = np.interp(knots, np.arange(len(p)), np.broadcast_to(r, len(p)))
    reach = width.max() + 10.0
    box = grid.box(curve.min(0) - reach, curve.max(0) + reach)
    distance = np.full([s.stop - s.start for s in box], OUTSIDE)
    for a, b, ra, rb in zip(curve[:-1], curve[1:], width[:-1], width[1:], strict=True):
        part = grid.box(np.minimum(a, b) - reach, np.maximum(a, b) + reach)
        inner = _box(
            [(s.start - o.start, s.stop - o.start) for s, o in zip(part, box, strict=True)]
        )
        distance[inner] = np.maximum(distance[inner], _cone(grid, part, a, b, ra, rb))
    return Shape(box, distance)


def smooth_noise(
    rng: np.random.Generator,
    shape: Sequence[int],
    spacing_mm: Sequence[float],
    wavelength_mm: float,
) -> Float:
    """A smooth random field of unit deviation: a cubic B-spline with random coefficients."""
    weights = [_spline(n, s / wavelength_mm) for n, s in zip(shape, spacing_mm, strict=True)]
    field = rng.standard_normal([w.shape[1] for w in weights]).astype(np.float32)
    for w in weights:  # each product moves the next axis to the front
        field = np.tensordot(field, w, axes=(0, 1))
    # three cubic B-splines each keep 0.479 of the variance of white coefficients
    return np.asarray(field / np.float32(0.479**1.5), np.float32)


def _spline(count: int, step: float) -> Float:
    at = np.arange(count) * step
    nodes = np.arange(int(np.ceil(at[-1])) + 4) - 1
    t = np.abs(at[:, None] - nodes[None])
    near = 2 / 3 - t**2 + t**3 / 2
    far = np.clip(2 - t, 0, None) ** 3 / 6
    return np.asarray(np.where(t < 1, near, far), np.float32)


def _cone(
    grid: Grid, box: Box, a: NDArray[np.float64], b: NDArray[np.float64], ra: float, rb: float
) -> Float:
    a32, ab = a.astype(np.float32), (b - a).astype(np.float32)
    x, y, z = grid.x[box] - a32[0], grid.y[box] - a32[1], grid.z[box] - a32[2]
    t = np.clip((x * ab[0] + y * ab[1] + z * ab[2]) / np.float32(ab @ ab + 1e-6), 0, 1)
    away = np.sqrt((x - t * ab[0]) ** 2 + (y - t * ab[1]) ** 2 + (z - t * ab[2]) ** 2)
    return np.asarray(np.float32(ra) + np.float32(rb - ra) * t - away, np.float32)


def _frame(axis: ArrayLike) -> Float:
    first = np.asarray(axis, float) / np.linalg.norm(axis)
    ref = np.array([1.0, 0, 0]) if abs(first[1]) > 0.9 else np.array([0, 1.0, 0])
    second = ref - (ref @ first) * first
    second /= np.linalg.norm(second)
    return np.stack([first, second, np.cross(first, second)]).astype(np.float32)


def _box(spans: Sequence[tuple[int, int]]) -> Box:
    i, j, k = (slice(*span) for span in spans)
    return i, j, k
