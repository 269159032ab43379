"""Voxel grids in patient space: axes, cropping and reorientation, without interpolation.

Images are arrays (channel, i, j, k), labels (i, j, k): the last three axes are always the spatial
ones. World coordinates are LPS millimetres, as in DICOM and ITK: x increases to the patient's Left,
y to Posterior, z to Superior. An orientation code names the direction in which each array axis
increases, such as "RAS".
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from math import ceil, floor
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fseft.errors import FseftError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Array = npt.NDArray[Any]

_LETTERS = ("LR", "PA", "SI")  # per world axis: the letter of its direction, and of the opposite

# An axis at 45 degrees has two nearest directions. Rotated by a hundredth of a degree about a skew
# axis it has one, and the same one after any permutation or flip of the array axes.
_TIE_BREAKING_ROTATION = np.eye(3) + 2e-4 * np.array(
    [[0.0, -0.79, 0.53], [0.79, 0.0, -0.31], [-0.53, 0.31, 0.0]]
)


@dataclass(frozen=True, eq=False)
class Geometry:
    """The voxel grid of a volume in patient space.

    Args:
        shape: Voxels along each array axis (i, j, k).
        affine: (4, 4) float64; maps the index (i, j, k, 1) of a voxel centre to LPS millimetres.

    Examples:
        >>> import numpy as np
        >>> geometry = Geometry((40, 256, 256), np.diag([-5.0, 0.8, 0.8, 1.0]))
        >>> geometry.orientation
        'RPS'
        >>> geometry.spacing_mm
        (5.0, 0.8, 0.8)
    """

    shape: tuple[int, int, int]
    affine: Array

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance of neighbouring voxel centres along each array axis, in mm."""
        return _triple(np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def direction(self) -> Array:
        """(3, 3): column a is the unit vector along array axis a, in LPS."""
        columns = self.affine[:3, :3]
        unit_vectors: Array = columns / np.linalg.norm(columns, axis=0)
        return unit_vectors

    @property
    def origin_mm(self) -> tuple[float, float, float]:
        """Centre of the voxel (0, 0, 0), in LPS mm."""
        return _triple(self.affine[:3, 3])

    @property
    def orientation(self) -> str:
        """Nearest three-letter orientation code; letter a is the direction of array axis a."""
        rotated = _TIE_BREAKING_ROTATION @ self.direction
        world_axes = max(
            permutations(range(3)), key=lambda axes: float(np.abs(rotated[axes, range(3)]).sum())
        )
        return "".join(
            _LETTERS[world][0 if rotated[world, axis] > 0 else 1]
            for axis, world in enumerate(world_axes)
        )

    @property
    def extent_mm(self) -> tuple[float, float, float]:
        """Length of the volume along each array axis, from voxel edge to voxel edge, in mm."""
        return _triple(np.multiply(self.shape, self.spacing_mm))

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel, in mm³."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    def to_json(self) -> dict[str, Any]:
        """Returns plain lists, for a document or the metadata of an array."""
        return {"shape": list(self.shape), "affine": self.affine.tolist()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Geometry:
        """Returns the geometry that `to_json` serialised."""
        i, j, k = map(int, data["shape"])
        affine = np.asarray(data["affine"], dtype=np.float64)
        return cls((i, j, k), affine)


@dataclass(frozen=True)
class Box:
    """A box of voxels.

    Attributes:
        start: First index along each array axis (i, j, k).
        stop: Index after the last one along each array axis.
    """

    start: tuple[int, int, int]
    stop: tuple[int, int, int]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along each array axis."""
        i, j, k = self.start
        i_stop, j_stop, k_stop = self.stop
        return i_stop - i, j_stop - j, k_stop - k

    @property
    def slices(self) -> tuple[Any, ...]:
        """Index of the box in an array with any number of leading axes."""
        return (..., *(slice(*limits) for limits in zip(self.start, self.stop, strict=True)))


def geometry_mismatch(a: Geometry, b: Geometry) -> str | None:
    """Describes the first difference between two grids.

    Spacings may differ by 0.1 %, directions by 0.001 per component, origins by a tenth of a voxel
    and at most 0.1 mm: the rounding errors of file formats.

    Args:
        a: The grid whose values are named first.
        b: The grid that it is compared with.

    Returns:
        A phrase with both values in the order x, y, z, or None if the grids are the same.

    Examples:
        >>> import numpy as np
        >>> a, b = Geometry((4, 4, 4), np.eye(4)), Geometry((4, 4, 5), np.eye(4))
        >>> geometry_mismatch(a, b)
        'shape 4×4×4 against 5×4×4 voxels'
    """
    if a.shape != b.shape:
        return f"shape {format_xyz(a.shape)} against {format_xyz(b.shape)} voxels"
    if not np.allclose(a.spacing_mm, b.spacing_mm, rtol=1e-3, atol=0):
        return f"spacing {format_xyz(a.spacing_mm)} mm against {format_xyz(b.spacing_mm)} mm"
    if a.orientation != b.orientation:
        return f"orientation {a.orientation[::-1]} against {b.orientation[::-1]}"
    if not np.allclose(a.direction, b.direction, rtol=0, atol=1e-3):
        degrees = _largest_angle(a.direction, b.direction)
        return f"axes that differ by {degrees:.3g} degrees"
    tolerance_mm = 0.1 * min(1.0, *a.spacing_mm)
    if not np.allclose(a.origin_mm, b.origin_mm, rtol=0, atol=tolerance_mm):
        return f"origin {_point(a.origin_mm)} mm against {_point(b.origin_mm)} mm"
    return None


def reorient(array: Array, geometry: Geometry, orientation: str) -> tuple[Array, Geometry]:
    """Permutes and flips the spatial axes to an orientation; oblique angles stay in the affine.

    The exact inverse is `reorient(..., geometry.orientation)`.

    Args:
        array: (..., i, j, k), on the grid of `geometry`.
        geometry: Grid of the array.
        orientation: Three-letter code, one letter of each pair L/R, A/P, S/I.

    Returns:
        The array in C order and its geometry.

    Raises:
        FseftError: The code is not an orientation.

    Examples:
        >>> import numpy as np
        >>> image, geometry = np.arange(3).reshape(1, 3, 1, 1), Geometry((3, 1, 1), np.eye(4))
        >>> geometry.orientation
        'LPS'
        >>> flipped, _ = reorient(image, geometry, "RPS")
        >>> flipped.ravel().tolist()
        [2, 1, 0]
    """
    view, reoriented = reoriented_view(array, geometry, orientation)
    return np.ascontiguousarray(view), reoriented


def reoriented_view(array: Array, geometry: Geometry, orientation: str) -> tuple[Array, Geometry]:
    """Reorients without a copy: values written to the returned view are written to the array.

    Args:
        array: (..., i, j, k), on the grid of `geometry`.
        geometry: Grid of the array.
        orientation: Three-letter code, one letter of each pair L/R, A/P, S/I.

    Raises:
        FseftError: The code is not an orientation.
    """
    source_axes = _source_axes(geometry.orientation, orientation)
    index_map, flipped = np.diag([0.0, 0.0, 0.0, 1.0]), []
    for axis, source in enumerate(source_axes):
        if geometry.orientation[source] == orientation[axis]:
            index_map[source, axis] = 1
        else:
            index_map[source, axis], index_map[source, 3] = -1, geometry.shape[source] - 1
            flipped.append(axis - 3)
    lead = array.ndim - 3
    axes = (*range(lead), *(lead + source for source in source_axes))
    view = np.flip(array.transpose(axes), tuple(flipped))
    i, j, k = (geometry.shape[source] for source in source_axes)
    return view, Geometry((i, j, k), geometry.affine @ index_map)


def bounding_box(mask: Array, margin_voxels: int = 0) -> Box:
    """Returns the smallest box around the nonzero voxels, or the whole array if all are zero.

    Args:
        mask: (..., i, j, k); a voxel counts if it is nonzero at any index of the leading axes.
        margin_voxels: Added on every side, within the array.
    """
    starts, stops = [], []
    lead = mask.ndim - 3
    for axis, size in enumerate(mask.shape[lead:], start=lead):
        other_axes = tuple(a for a in range(mask.ndim) if a != axis)
        nonzero = np.flatnonzero(mask.any(axis=other_axes))
        first, last = (nonzero[0], nonzero[-1]) if nonzero.size else (0, size - 1)
        starts.append(max(0, int(first) - margin_voxels))
        stops.append(min(size, int(last) + 1 + margin_voxels))
    i, j, k = starts
    i_stop, j_stop, k_stop = stops
    return Box((i, j, k), (i_stop, j_stop, k_stop))


def crop(array: Array, geometry: Geometry, box: Box) -> tuple[Array, Geometry]:
    """Returns the part of an array in a box, as a view, and its geometry.

    Args:
        array: (..., i, j, k).
        geometry: Grid of the array.
        box: First voxel and size along i, j and k.
    """
    return array[box.slices], cropped_geometry(geometry, box)


def cropped_geometry(geometry: Geometry, box: Box) -> Geometry:
    """Returns the grid of a box.

    Args:
        geometry: The grid.
        box: The box, in voxels of the grid.
    """
    affine = geometry.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ box.start
    return Geometry(box.shape, affine)


def resampled_geometry(geometry: Geometry, spacing_mm: Sequence[float]) -> Geometry:
    """Returns the grid with about this spacing and exactly the same field of view.

    The shape is rounded to whole voxels; the spacing then is extent / shape, so that the outer
    voxel edges stay in place and the first voxel centre moves by half the change of spacing (the
    convention of PyTorch's `align_corners=False` and of scikit-image, not of ITK).

    Args:
        geometry: The original grid.
        spacing_mm: Target spacing per array axis, in mm.
    """
    counts = np.divide(geometry.extent_mm, spacing_mm)
    i, j, k = (max(1, round(float(count))) for count in counts)
    spacing = np.divide(geometry.extent_mm, (i, j, k))
    affine = geometry.affine.copy()
    affine[:3, :3] = geometry.direction * spacing
    affine[:3, 3] += geometry.direction @ (spacing - geometry.spacing_mm) / 2
    return Geometry((i, j, k), affine)


def resampled_from_first_voxel(
    geometry: Geometry, box: Box, spacing_mm: Sequence[float]
) -> tuple[Box, Geometry]:
    """Returns the part of a grid with exactly this spacing that covers a box of the original grid.

    The new grid has the original's first voxel, also where that is not in the box, and rounds the
    distance of first and last voxel (the convention of `Spacing` in MONAI).

    Args:
        geometry: The original grid.
        box: Part of the original grid.
        spacing_mm: Target spacing per array axis, in mm.

    Returns:
        The box, enlarged to the voxels between which the new ones are interpolated; and the part of
        the new grid.
    """
    lines = []
    for axis, size in enumerate(geometry.shape):
        step = spacing_mm[axis] / geometry.spacing_mm[axis]
        lines.append(_line_from_first_voxel(size, box.start[axis], box.stop[axis], step))
    old_start, old_stop, new_start, new_stop = zip(*lines, strict=True)
    affine = geometry.affine.copy()
    affine[:3, :3] = geometry.direction * spacing_mm
    part = cropped_geometry(Geometry(new_stop, affine), Box(new_start, new_stop))
    return Box(old_start, old_stop), part


def _line_from_first_voxel(
    size: int, start: int, stop: int, step: float
) -> tuple[int, int, int, int]:
    """Returns an axis of `resampled_from_first_voxel`.

    Args:
        size: Voxels of the original grid.
        start: First voxel of the box.
        stop: Voxel after the last one of the box.
        step: Distance of new voxels, in original ones.

    Returns:
        Start and stop of the enlarged box, and of the part of the new grid.
    """
    end = size - 1
    last_of_grid = round(end / step)
    first = floor(start / step)
    last = ceil((stop - 1) / step)
    last = min(last_of_grid, last)
    first_needed = floor(first * step)
    last_needed = ceil(last * step)
    last_needed = min(end, last_needed)
    old_start = min(start, first_needed)
    old_stop = max(stop, last_needed + 1)
    return old_start, old_stop, first, last + 1


def shear_degrees(affine: Array) -> float:
    """Returns the largest deviation from the right angle between two axes of an affine, in degrees.

    Args:
        affine: (4, 4), from voxel indices to positions in mm.

    Raises:
        FseftError: The axes span no volume.
    """
    with np.errstate(over="ignore"):  # of a damaged file
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if not (np.isfinite(affine).all() and np.isfinite(spacing).all() and spacing.all()):
        raise FseftError(
            f"has a degenerate grid (spacing {_times(spacing)} mm)", hint="Repair its header."
        )
    direction = affine[:3, :3] / spacing
    if np.linalg.svd(direction, compute_uv=False)[-1] < 1e-3:
        raise FseftError("has a degenerate grid (two axes are parallel)", hint="Repair its header.")
    cosines = np.abs(np.triu(direction.T @ direction, k=1))
    return float(np.degrees(np.arcsin(min(1.0, cosines.max()))))


def format_xyz(values: tuple[float, float, float]) -> str:
    """Formats values of the axes (i, j, k) = (z, y, x) of a file in the order x, y, z.

    Examples:
        >>> format_xyz((5.0, 0.7, 0.8))
        '0.8×0.7×5'
    """
    return _times(values[::-1])


def _source_axes(source: str, target: str) -> list[int]:
    """Returns, for each axis of the target orientation, the parallel axis of the source."""
    source_pairs = [_letter_pair(letter) for letter in source]
    target_pairs = [_letter_pair(letter) for letter in target]
    if len(target) != 3 or sorted(target_pairs) != sorted(source_pairs):
        hint = "Take one letter of each pair L/R, A/P, S/I, as in 'RAS'."
        raise FseftError(f"'{target}' is not an orientation", hint=hint)
    return [source_pairs.index(pair) for pair in target_pairs]


def _letter_pair(letter: str) -> str:
    return next((pair for pair in _LETTERS if letter in pair), "")


def _triple(values: Array) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])


def _largest_angle(directions: Array, others: Array) -> float:
    """Returns the largest angle between columns of two (3, 3) direction matrices, in degrees."""
    cosines = np.sum(directions * others, axis=0)
    smallest = np.clip(cosines.min(), -1, 1)
    return float(np.degrees(np.arccos(smallest)))


def _times(values: Sequence[float] | Array) -> str:
    return "×".join(f"{value:.5g}" for value in values)


def _point(values: Sequence[float]) -> str:
    return f"({', '.join(f'{value:.6g}' for value in values)})"
