"""Where an array lies in the patient: grid, axes, cropping and reorientation, without touching voxel values.

Images are arrays (channel, i, j, k), labels (i, j, k): the last three axes are always the spatial ones.
World coordinates are LPS millimetres, as in DICOM and ITK: x grows to the patient's Left, y to Posterior,
z to Superior. An orientation code names, for each array axis, the direction towards which it grows ("RAS").
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fseft.errors import FseftError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Array = npt.NDArray[Any]

_LETTERS = ("LR", "PA", "SI")  # per world axis: where it grows to, and the other way

# An axis at 45 degrees has two nearest directions. Turned by a hundredth of a degree about no particular axis
# it has one, and the same one after any permutation or flip of the array axes.
_TURN = np.eye(3) + 2e-4 * np.array([[0.0, -0.79, 0.53], [0.79, 0.0, -0.31], [-0.53, 0.31, 0.0]])


@dataclass(frozen=True, eq=False)
class Geometry:
    """The grid of a volume.

    Args:
        shape: Voxels per array axis.
        affine: (4, 4) float64; maps array index (i, j, k, 1) of a voxel centre to LPS millimetres.
    """

    shape: tuple[int, int, int]
    affine: Array

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance of neighbouring voxel centres along each array axis."""
        return _triple(np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def direction(self) -> Array:
        """(3, 3): column a is the unit vector along array axis a, in LPS."""
        columns: Array = self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)
        return columns

    @property
    def origin_mm(self) -> tuple[float, float, float]:
        """Centre of the first voxel, in LPS."""
        return _triple(self.affine[:3, 3])

    @property
    def orientation(self) -> str:
        """The nearest three-letter code; letter a is where array axis a grows to."""
        turned = _TURN @ self.direction
        worlds = max(permutations(range(3)), key=lambda world: sum(abs(turned[world, range(3)])))
        return "".join(
            _LETTERS[w][0 if turned[w, axis] > 0 else 1] for axis, w in enumerate(worlds)
        )

    @property
    def extent_mm(self) -> tuple[float, float, float]:
        """Length of the volume along each array axis, from voxel edge to voxel edge."""
        return _triple(np.multiply(self.shape, self.spacing_mm))

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    def to_json(self) -> dict[str, Any]:
        """Plain lists, for a document or the metadata of an array."""
        return {"shape": list(self.shape), "affine": self.affine.tolist()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Geometry:
        """The inverse of `to_json`."""
        i, j, k = data["shape"]
        return cls((int(i), int(j), int(k)), np.asarray(data["affine"], dtype=np.float64))


@dataclass(frozen=True)
class Box:
    """A part of a grid: voxel indices from `start` (in) to `stop` (out), per array axis."""

    start: tuple[int, int, int]
    stop: tuple[int, int, int]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels per array axis."""
        i, j, k = (stop - start for start, stop in zip(self.start, self.stop, strict=True))
        return i, j, k

    @property
    def slices(self) -> tuple[Any, ...]:
        """Index of the part in an array with any number of leading axes."""
        return (
            ...,
            *(slice(start, stop) for start, stop in zip(self.start, self.stop, strict=True)),
        )


def geometry_mismatch(a: Geometry, b: Geometry) -> str | None:
    """What tells two grids apart, as a phrase with both values in x, y, z; None if they are the same grid.

    Spacings may differ by 0.1 %, directions by 0.001 per component, origins by a tenth of a voxel and at most
    0.1 mm: what file formats lose by rounding.
    """
    if a.shape != b.shape:
        return f"shape {_times(a.shape[::-1])} against {_times(b.shape[::-1])} voxels"
    if not np.allclose(a.spacing_mm, b.spacing_mm, rtol=1e-3, atol=0):
        return f"spacing {_times(a.spacing_mm[::-1])} mm against {_times(b.spacing_mm[::-1])} mm"
    if a.orientation != b.orientation:
        return f"orientation {a.orientation[::-1]} against {b.orientation[::-1]}"
    if not np.allclose(a.direction, b.direction, rtol=0, atol=1e-3):
        cosines = np.clip(np.sum(a.direction * b.direction, axis=0), -1, 1)
        return f"axes that differ by {np.degrees(np.arccos(cosines.min())):.3g} degrees"
    tolerance_mm = 0.1 * min(1.0, *a.spacing_mm)
    if not np.allclose(a.origin_mm, b.origin_mm, rtol=0, atol=tolerance_mm):
        return f"origin {_point(a.origin_mm)} mm against {_point(b.origin_mm)} mm"
    return None


def reorient(array: Array, geometry: Geometry, orientation: str) -> tuple[Array, Geometry]:
    """Permute and flip the last three axes towards an orientation; oblique angles stay in the affine.

    The exact inverse is `reorient(..., geometry.orientation)`.

    Args:
        array: (..., i, j, k), on the grid of `geometry`.
        geometry: Where it lies.
        orientation: Three-letter code, one letter of each pair L/R, A/P, S/I.

    Returns:
        The array in C order and its geometry.

    Raises:
        FseftError: The code is no orientation.
    """
    view, turned = reoriented_view(array, geometry, orientation)
    return np.ascontiguousarray(view), turned


def reoriented_view(array: Array, geometry: Geometry, orientation: str) -> tuple[Array, Geometry]:
    """`reorient` without a copy: what is written into the result is written into the array."""
    source = geometry.orientation
    sources = [
        axis for letter in orientation for axis in range(3) if _pair(source[axis]) == _pair(letter)
    ]
    if len(orientation) != 3 or sorted(sources) != [0, 1, 2]:
        hint = "Take one letter of each pair L/R, A/P, S/I, as in 'RAS'."
        raise FseftError(f"'{orientation}' is no orientation", hint=hint)
    step, flipped = np.diag([0.0, 0.0, 0.0, 1.0]), []
    for axis, old in enumerate(sources):
        if source[old] == orientation[axis]:
            step[old, axis] = 1
        else:
            step[old, axis], step[old, 3] = -1, geometry.shape[old] - 1
            flipped.append(axis - 3)
    lead = array.ndim - 3
    view = np.flip(array.transpose(*range(lead), *(lead + old for old in sources)), tuple(flipped))
    i, j, k = (geometry.shape[old] for old in sources)
    return view, Geometry((i, j, k), geometry.affine @ step)


def bounding_box(mask: Array, margin_voxels: int = 0) -> Box:
    """The smallest box around the nonzero voxels, and a margin; the whole array if there are none.

    Args:
        mask: (..., i, j, k); a voxel counts if it is nonzero in any leading axis.
        margin_voxels: Added on every side, as far as the array goes.
    """
    full: tuple[int, ...] = mask.shape[-3:]
    start, stop = [0, 0, 0], list(full)
    for axis in range(3):
        others = tuple(a for a in range(mask.ndim) if a != mask.ndim - 3 + axis)
        hits = np.flatnonzero(mask.any(axis=others))
        if hits.size == 0:
            return Box((0, 0, 0), (full[0], full[1], full[2]))
        start[axis] = max(0, int(hits[0]) - margin_voxels)
        stop[axis] = min(full[axis], int(hits[-1]) + 1 + margin_voxels)
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


def crop(array: Array, geometry: Geometry, box: Box) -> tuple[Array, Geometry]:
    """The part of an array (..., i, j, k) in a box, as a view, and where it lies."""
    affine = geometry.affine.copy()
    affine[:3, 3] += geometry.affine[:3, :3] @ box.start
    return array[box.slices], Geometry(box.shape, affine)


def resampled_geometry(geometry: Geometry, spacing_mm: Sequence[float]) -> Geometry:
    """The grid of about this spacing with exactly the same field of view.

    The shape is rounded to whole voxels; the spacing then is extent / shape, so that the outer voxel edges
    stay where they are and the first voxel centre moves by half the change of spacing (the convention of
    PyTorch's `align_corners=False` and of scikit-image, not of ITK).

    Args:
        geometry: The grid to start from.
        spacing_mm: The spacing wanted, per array axis.
    """
    wanted = np.divide(geometry.extent_mm, spacing_mm)
    i, j, k = (max(1, round(float(count))) for count in wanted)
    spacing = np.divide(geometry.extent_mm, (i, j, k))
    affine = geometry.affine.copy()
    affine[:3, :3] = geometry.direction * spacing
    affine[:3, 3] += geometry.direction @ (spacing - geometry.spacing_mm) / 2
    return Geometry((i, j, k), affine)


def nearest_orthonormal(affine: Array) -> tuple[Array, float]:
    """Make the axes of an affine perpendicular, keeping spacing and origin.

    Returns:
        The (4, 4) affine with the nearest orthonormal axes (the polar factor, by SVD), and the largest angle
        in degrees by which an axis was turned.

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
    u, strength, vt = np.linalg.svd(direction)
    if strength[-1] < 1e-3:
        raise FseftError("has a degenerate grid (two axes are parallel)", hint="Repair its header.")
    repaired = affine.copy()
    repaired[:3, :3] = (u @ vt) * spacing
    chord = np.linalg.norm(u @ vt - direction, axis=0).max()
    return repaired, float(np.degrees(2 * np.arcsin(min(1.0, chord / 2))))


def _pair(letter: str) -> str:
    return next((pair for pair in _LETTERS if letter in pair), "")


def _triple(values: Array) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])


def _times(values: Sequence[float] | Array) -> str:
    return "×".join(f"{value:.5g}" for value in values)


def _point(values: Sequence[float]) -> str:
    return f"({', '.join(f'{value:.6g}' for value in values)})"
