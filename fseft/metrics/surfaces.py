"""Surfaces of masks, their areas, and distances between them."""

from __future__ import annotations

from functools import cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]
    Array = NDArray[Any]

_EIGHTHS = 8  # of the components of the vectors in the file
_FIRST_BIT, _FULL = 128, 255


def surface_voxels(mask: Mask, spacing_mm: Sequence[float]) -> Array:
    """Returns the centres (n, 3) of voxels with a face neighbour outside the mask, in mm.

    Args:
        mask: (i, j, k); voxels outside of the array do not belong to the mask.
        spacing_mm: Voxel size along i, j, k.
    """
    from scipy.ndimage import binary_erosion

    surface: Array = np.argwhere(mask & ~binary_erosion(mask)) * np.asarray(spacing_mm)
    return surface


def surface_elements(mask: Mask, spacing_mm: Sequence[float]) -> tuple[Array, Array]:
    """Returns the surface elements between voxels inside and outside of a mask.

    Neighbourhoods of 2 x 2 x 2 voxels that belong to the mask in part have an element at their
    centre, whose area depends on the pattern (Nikolov et al. 2021, https://arxiv.org/abs/1809.04430).

    Args:
        mask: (i, j, k); voxels outside of the array do not belong to the mask.
        spacing_mm: Voxel size along i, j, k.

    Returns:
        Positions (n, 3) in mm, and areas (n) in mm².
    """
    codes = _neighbourhoods(np.pad(mask, 1))
    positions = np.argwhere((codes != 0) & (codes != _FULL))
    areas = _areas(tuple(spacing_mm))[codes[tuple(positions.T)]]
    return positions * np.asarray(spacing_mm), areas


def _neighbourhoods(mask: Mask) -> Array:
    """Returns the 2 x 2 x 2 voxels at each position as the bits of a number."""
    shape = np.subtract(mask.shape, 1)
    codes = np.zeros(shape, np.uint8)
    for corner, start in enumerate(product((0, 1), repeat=3)):
        region = tuple(map(slice, start, shape + start))
        codes |= mask[region] * np.uint8(_FIRST_BIT >> corner)
    return codes


@cache
def _areas(spacing_mm: tuple[float, float, float]) -> Array:
    """Returns the area of the surface element of each of the 256 neighbourhoods, in mm²."""
    normals = np.load(Path(__file__).with_name("surface_normals.npy")) / _EIGHTHS
    faces = np.prod(spacing_mm) / np.asarray(spacing_mm)  # across i, j, k
    areas: Array = np.linalg.norm(normals * faces, axis=-1).sum(-1)
    return areas


def nearest_distances(points: Array, others: Array, limit_mm: float = np.inf) -> Array:
    """Returns the distance of each point to the nearest of the others, in mm.

    Args:
        points: (n, 3) in mm.
        others: (m, 3) in mm, m > 0.
        limit_mm: Larger distances are infinite.
    """
    from scipy.spatial import KDTree

    distances, _ = KDTree(others).query(points, distance_upper_bound=limit_mm)
    return np.asarray(distances)
