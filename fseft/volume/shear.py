"""Scans whose voxel axes are not perpendicular, as of a CT with tilted gantry.

Networks see them on the nearest grid with perpendicular axes, and results return to the grid of the
file. In a stack of tilted slices, both are shifts within the slices: no slice is interpolated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fseft.volume.geometry import Geometry, shear_degrees

if TYPE_CHECKING:
    from fseft.volume.geometry import Array
    from fseft.volume.image import Volume

MAX_DEGREES = 0.1
"""Deviation from the right angle up to which axes count as perpendicular."""
_ROUNDING = 1e-6  # voxels


def perpendicular_grid(geometry: Geometry) -> Geometry:
    """Returns the grid with perpendicular axes that covers a grid, which may be that grid itself.

    The axes with the smallest spacing keep their direction, or come closest to it
    (Gram-Schmidt). The planes of the axis with the largest spacing stay where they are.
    """
    if shear_degrees(geometry.affine) <= MAX_DEGREES:
        return geometry
    columns = _perpendicular_columns(geometry)
    to_voxels = np.linalg.solve(columns, geometry.affine[:3, :3])
    last = np.subtract(geometry.shape, 1)
    corners = to_voxels @ (np.indices((2, 2, 2)).reshape(3, 8) * last[:, None])
    first = np.floor(corners.min(axis=1) + _ROUNDING)
    stop = np.ceil(corners.max(axis=1) - _ROUNDING) + 1
    affine = np.eye(4)
    affine[:3, :3] = columns
    affine[:3, 3] = geometry.affine[:3, 3] + columns @ first
    i, j, k = (stop - first).astype(int).tolist()
    return Geometry((i, j, k), affine)


def _perpendicular_columns(geometry: Geometry) -> Array:
    """Returns vectors between voxels along perpendicular axes, (3, 3), by Gram-Schmidt."""
    columns = geometry.affine[:3, :3].copy()
    finest_first = np.argsort(geometry.spacing_mm, kind="stable").tolist()
    for position, axis in enumerate(finest_first):
        for other in finest_first[:position]:
            unit = columns[:, other] / np.linalg.norm(columns[:, other])
            columns[:, axis] -= (unit @ columns[:, axis]) * unit
    return columns


def to_perpendicular(volume: Volume, *, pad: float | None = None, labels: bool = False) -> Volume:
    """Resamples a volume to the grid with perpendicular axes; others are returned as they are.

    Args:
        volume: (C, i, j, k), as read.
        pad: Value outside the volume; None for the minimum of each channel.
        labels: Take the nearest voxel, and pad with 0, instead of linear interpolation.

    Returns:
        The volume of the same dtype.
    """
    grid = perpendicular_grid(volume.geometry)
    if grid is volume.geometry:
        return volume
    outside = 0.0 if labels else pad
    array = _resampled(volume.array, volume.geometry, grid, 0 if labels else 1, outside)
    return type(volume)(array, grid)


def from_perpendicular(array: Array, geometry: Geometry, *, labels: bool) -> Array:
    """Resamples a result to the grid of the file.

    Args:
        array: (..., i, j, k) on `perpendicular_grid(geometry)`.
        geometry: Grid of the file.
        labels: Take the nearest voxel, instead of linear interpolation.

    Returns:
        (..., i, j, k) on the grid of the file, with the same dtype.
    """
    grid = perpendicular_grid(geometry)
    if grid is geometry:
        return array
    channels = array.reshape(-1, *grid.shape)
    restored = _resampled(channels, grid, geometry, 0 if labels else 1, 0.0)
    return restored.reshape(*array.shape[:-3], *geometry.shape)


def _resampled(
    array: Array, source: Geometry, target: Geometry, order: int, pad: float | None
) -> Array:
    """Resamples (C, i, j, k) from one grid to another one."""
    from scipy.ndimage import affine_transform

    matrix = np.linalg.solve(source.affine, target.affine)
    result = np.empty((len(array), *target.shape), array.dtype)
    for channel, resampled in zip(array, result, strict=True):
        values = affine_transform(
            channel if order == 0 else channel.astype(np.float32),
            matrix[:3, :3],
            offset=matrix[:3, 3],
            output_shape=target.shape,
            order=order,
            cval=float(channel.min()) if pad is None else pad,
        )
        if order and array.dtype.kind in "iu":
            np.rint(values, out=values)
        resampled[:] = values
    return result
