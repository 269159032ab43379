"""Splits a pair of organs with one label into left and right.

Components are assigned by the midline of the body, the plane of best mirror symmetry, as patients
may be rotated and off-centre. Arrays are RAS: the first axis increases to the patient's right.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage, optimize

from fseft.volume.geometry import bounding_box, reorient
from fseft.volume.image import Volume
from fseft.volume.intensity import AIR_THRESHOLD_HU

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fseft.schemas import Millimetres, Modality
    from fseft.volume.geometry import Array

_COARSE_MM = 6.0  # bodies are not symmetric at a finer resolution
_MAX_POINTS = 20_000  # of the body to mirror
_MIN_SYMMETRY = 0.85  # symmetric fraction of a reliable midline
_MIN_VISIBLE = 0.5  # fraction of the body with its mirror image in the field of view
_REGULARISATION = 0.02  # weight of a visible, upright plane where symmetry does not decide
_MAX_OVERHANG = 0.1  # fraction of a component beyond the midline that is ignored
_NEGLIGIBLE = 0.02  # fraction of the structure that does not cause a warning
_MAIN_COMPONENT = 0.2  # fraction of the structure that makes a component one of the pair
_SHIFTS = np.linspace(-0.35, 0.35, 15)  # initial offsets, as fractions of the width of the body
_SLOPES = (-0.3, -0.15, 0.0, 0.15, 0.3)  # initial slopes along the second axis
_CONNECTIVITY = np.ones((3, 3, 3), bool)


@dataclass(frozen=True)
class Midline:
    """The plane i = `offset_mm` + `slopes` · (j, k), in mm from the centre of the first voxel.

    Attributes:
        offset_mm: Intersection with the first axis.
        slopes: Slopes along the second and the third axis.
        symmetry: Fraction of the visible body whose mirror image is in the body.
        visible: Fraction of the body whose mirror image is in the field of view.
    """

    offset_mm: float
    slopes: tuple[float, float]
    symmetry: float = 1.0
    visible: float = 1.0

    @property
    def is_uncertain(self) -> bool:
        """Whether too little of the body is symmetric or visible."""
        return self.symmetry < _MIN_SYMMETRY or self.visible < _MIN_VISIBLE

    def right_of_mm(self, i: Array, j: Array, k: Array) -> Array:
        """Returns how far points (in mm) are right of the plane, along the first axis.

        Args:
            i: Positions in mm along the first axis, which points to the right.
            j: Positions in mm along the second axis.
            k: Positions in mm along the third axis; the three arrays have shapes that broadcast.

        Returns:
            Distances in mm, negative left of the plane, of the broadcast shape.
        """
        slope_j, slope_k = self.slopes
        plane = self.offset_mm + slope_j * j + slope_k * k
        return np.asarray(i - plane)


@dataclass(frozen=True, eq=False)
class LeftRightMasks:
    """A pair, split into left and right.

    Attributes:
        left: Mask (i, j, k) of the left structure.
        right: Mask (i, j, k) of the right structure.
        warnings: Reasons why the split may be wrong.
    """

    left: Array
    right: Array
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class LeftRightPair:
    """Label values of the left and the right structure of a pair.

    Attributes:
        left: Label value of the left structure.
        right: Label value of the right structure.
        expect_both: Whether every patient has both; lesions may be on one side only.
    """

    left: int
    right: int
    expect_both: bool = True


def find_midline(body: Array, spacing_mm: Millimetres) -> Midline:
    """Returns the plane of best mirror symmetry of the body.

    Points with a mirror image outside the field of view are ignored, so that a body that is
    truncated on one side keeps its midline.

    Args:
        body: Mask (i, j, k), RAS; it may contain tables, tubes and holes.
        spacing_mm: Spacing along the axes.
    """
    coarse, step = _coarse_body(body, spacing_mm)
    voxels = np.argwhere(coarse)
    if not len(voxels):
        middle = step[0] * coarse.shape[0] / 2
        return Midline(middle, (0.0, 0.0), symmetry=0.0, visible=0.0)
    points = voxels[:: 1 + len(voxels) // _MAX_POINTS] * step
    search = _MidlineSearch(coarse, step, points)
    shifts = _SHIFTS * np.ptp(points[:, 0])
    starts = [(shift, slope, 0.0) for shift in shifts for slope in _SLOPES]
    start = min(starts, key=search.cost)
    simplex = np.tile(start, (4, 1))
    simplex[1:] += np.diag([3 * _COARSE_MM, 0.1, 0.1])
    options = {"initial_simplex": simplex, "maxiter": 150}
    best = optimize.minimize(search.cost, start, method="Nelder-Mead", options=options)
    return search.midline(best.x)


def split_sides(
    mask: Array, midline: Midline, spacing_mm: Millimetres, *, expect_both: bool = True
) -> LeftRightMasks:
    """Splits a pair by assigning each component to its side of the midline.

    A component on both sides, such as a horseshoe kidney or lungs in contact, is divided at its
    narrowest place if there is any, else at the midline.

    Args:
        mask: Mask (i, j, k) of the pair, RAS.
        midline: Midline of the body.
        spacing_mm: Spacing along the axes.
        expect_both: Warn if one side is missing.
    """
    left = np.zeros_like(mask, bool)
    right = np.zeros_like(mask, bool)
    if not mask.any():
        return LeftRightMasks(left, right)
    box = bounding_box(mask)
    limits = zip(box.start, box.stop, spacing_mm, strict=True)
    axes = [np.arange(start, stop) * mm for start, stop, mm in limits]
    right_of_mm = midline.right_of_mm(*np.ix_(*axes))
    part = mask[box.slices]
    is_right, warnings = _assign_voxels(part, right_of_mm, spacing_mm, expect_both=expect_both)
    if midline.is_uncertain:
        warnings = ["the body has no clear midline", *warnings]
    right[box.slices] = is_right & part
    left[box.slices] = ~is_right & part
    return LeftRightMasks(left, right, tuple(warnings))


def split_labels(
    labels: Volume, image: Volume, pairs: Mapping[int, LeftRightPair], modality: Modality
) -> tuple[Volume, dict[int, tuple[str, ...]]]:
    """Splits pairs in a label map, on its grid.

    Args:
        labels: Label map (1, i, j, k) in any orientation.
        image: Image on the same grid, from which the body is segmented.
        pairs: Value of a pair -> values of its sides, which no other structure has.
        modality: Modality of the image; decides the threshold of air.

    Returns:
        The label map with sides instead of pairs, and the warnings for each pair that occurs.
    """
    occurring = [value for value in pairs if (labels.array == value).any()]
    if not occurring:
        return labels, {}
    array, grid = reorient(labels.array[0], labels.geometry, "RAS")
    body, _ = reorient(_body_mask(image.array, modality), labels.geometry, "RAS")
    midline = find_midline(body, grid.spacing_mm)
    array = array.astype(_dtype_for(array, pairs))
    warnings = {}
    for value in occurring:
        pair = pairs[value]
        mask = array == value
        sides = split_sides(mask, midline, grid.spacing_mm, expect_both=pair.expect_both)
        array[sides.left], array[sides.right] = pair.left, pair.right
        warnings[value] = sides.warnings
    restored, _ = reorient(array, grid, labels.geometry.orientation)
    return Volume(restored[np.newaxis], labels.geometry), warnings


@dataclass(frozen=True, eq=False)
class _MidlineSearch:
    """The cost of candidate midlines.

    Attributes:
        body: Coarse mask (i, j, k) of the body.
        step: Spacing of the coarse mask in mm, (3,).
        points: Points (n, 3) of the body in mm.
    """

    body: Array
    step: Array
    points: Array

    def midline(self, parameters: Sequence[float]) -> Midline:
        """Returns the midline with a shift (mm) from the centre of the body and two slopes."""
        shift, slope_j, slope_k = map(float, parameters)
        i, j, k = self.points.mean(axis=0).tolist()
        offset_mm = i + shift - slope_j * j - slope_k * k
        plane = Midline(offset_mm, (slope_j, slope_k))
        symmetry, visible = self._symmetry(plane)
        return replace(plane, symmetry=symmetry, visible=visible)

    def cost(self, parameters: Sequence[float]) -> float:
        """Returns a number that is smaller for a better midline."""
        midline = self.midline(parameters)
        squared_slope = float(np.square(midline.slopes).sum())
        preference = midline.visible - 10 * squared_slope
        visibility = min(1.0, midline.visible / _MIN_VISIBLE)
        return -midline.symmetry * visibility - _REGULARISATION * preference

    def _symmetry(self, plane: Midline) -> tuple[float, float]:
        """Returns `symmetry` and `visible` of a plane."""
        normal = np.array([1.0, -plane.slopes[0], -plane.slopes[1]])
        distances = plane.right_of_mm(*self.points.T) / (normal @ normal)
        mirrored_mm = self.points - 2 * distances[:, None] * normal
        mirrored = np.rint(mirrored_mm / self.step).astype(np.intp)
        visible = (mirrored >= 0) & (mirrored < self.body.shape)
        is_visible = visible.all(axis=1)
        if not is_visible.any():
            return 0.0, 0.0
        hits = self.body[tuple(mirrored[is_visible].T)]
        return float(hits.mean()), float(is_visible.mean())


def _dtype_for(labels: Array, pairs: Mapping[int, LeftRightPair]) -> np.dtype[Any]:
    """Returns the smallest dtype for the labels and the values of the sides."""
    highest = int(labels.max())
    for pair in pairs.values():
        highest = max(highest, pair.left, pair.right)
    return np.min_scalar_type(highest)


def _body_mask(image: Array, modality: Modality) -> Array:
    """Returns the mask (i, j, k) of the first channel of (C, i, j, k) without air."""
    channel = image[0]
    if modality == "ct":
        return np.asarray(channel > AIR_THRESHOLD_HU)
    low, high = np.percentile(channel[::4, ::4, ::4], (1, 99))
    return np.asarray(channel > low + 0.1 * (high - low))


def _coarse_body(body: Array, spacing_mm: Millimetres) -> tuple[Array, Array]:
    """Returns the largest component at about `_COARSE_MM`, its cavities filled, and the spacing."""
    strides = [max(1, round(_COARSE_MM / mm)) for mm in spacing_mm]
    coarse = body[tuple(slice(None, None, stride) for stride in strides)]
    opened = ndimage.binary_opening(coarse)
    components, count = ndimage.label(opened if opened.any() else coarse)
    if count > 1:
        sizes = np.bincount(components.ravel())
        components = components == 1 + np.argmax(sizes[1:])
    filled = np.zeros(components.shape, bool)
    for k in range(components.shape[2]):
        filled[..., k] = ndimage.binary_fill_holes(components[..., k] > 0)
    return filled, np.multiply(strides, spacing_mm)


def _assign_voxels(
    mask: Array, right_of_mm: Array, spacing_mm: Millimetres, *, expect_both: bool
) -> tuple[Array, list[str]]:
    """Returns whether each voxel (i, j, k) of a pair is right, and warnings."""
    components, count = ndimage.label(mask, structure=_CONNECTIVITY)
    sizes = np.bincount(components.ravel(), minlength=count + 1)
    sizes[0] = 0
    right_sizes = np.bincount(components[right_of_mm > 0], minlength=count + 1)
    right_fractions = right_sizes / np.maximum(sizes, 1)
    component_is_right = right_fractions > 0.5
    crossing = [n for n in range(1, count + 1) if _crosses(right_fractions[n])]
    large_crossing = [n for n in crossing if sizes[n] > _NEGLIGIBLE * sizes.sum()]
    warnings = []
    if expect_both and not large_crossing:
        warnings += _assign_by_order(component_is_right, sizes, components)
    is_right = component_is_right[components]
    for number in crossing:
        component = components == number
        is_right[component], place = _divide(component, right_of_mm, spacing_mm)
        if number in large_crossing:
            warnings.append(f"one component crosses the midline: divided at {place}")
    return is_right, warnings


def _crosses(right_fraction: float) -> bool:
    """Returns whether a component with this fraction right of the midline is on both sides."""
    return _MAX_OVERHANG < right_fraction < 1 - _MAX_OVERHANG


def _assign_by_order(is_right: Array, sizes: Array, components: Array) -> list[str]:
    """Assigns two components on one side by their order, in place; return warnings."""
    main = np.flatnonzero(sizes > _MAIN_COMPONENT * sizes.sum()).tolist()
    sides = {bool(is_right[n]) for n in main}
    if len(sides) != 1:
        return []
    side, other = ("right", "left") if True in sides else ("left", "right")
    if len(main) != 2:
        return [f"no component is on the {other}"]
    positions = [np.nonzero(components == n)[0].mean() for n in main]
    is_right[main[np.argmin(positions)]] = False
    is_right[main[np.argmax(positions)]] = True
    return [f"both components are on the {side} of the midline: assigned by their order"]


def _divide(component: Array, right_of_mm: Array, spacing_mm: Millimetres) -> tuple[Array, str]:
    """Divides one component at its narrowest place, or else at the midline.

    The component is eroded until it falls into cores on either side of the midline; each voxel then
    belongs to the side of the nearest core.

    Returns:
        Whether each voxel of the component is right, (n,), and the name of the place.
    """
    core, size = component, np.count_nonzero(component)
    while np.count_nonzero(core := ndimage.binary_erosion(core)) > _MAIN_COMPONENT * size:
        cores, count = ndimage.label(core, structure=_CONNECTIVITY)
        sizes = np.bincount(cores.ravel())[1:]
        fractions = ndimage.mean(right_of_mm > 0, cores, range(1, count + 1))
        core_is_right = np.greater(fractions, 0.5)
        is_main = sizes > _MAIN_COMPONENT * sizes.sum()
        if _separate(np.asarray(fractions)[is_main]):
            cores[~np.append(False, is_main)[cores]] = 0
            nearest = _nearest_core(cores, spacing_mm)
            return core_is_right[nearest[component] - 1], "its narrowest place"
    return (right_of_mm > 0)[component], "the midline"


def _separate(right_fractions: Array) -> bool:
    """Returns whether cores are clearly on both sides of the midline."""
    is_right = right_fractions > 1 - _MAX_OVERHANG
    is_left = right_fractions < _MAX_OVERHANG
    return bool((is_left | is_right).all() and is_left.any() and is_right.any())


def _nearest_core(cores: Array, spacing_mm: Millimetres) -> Array:
    """Returns the number of the nearest core of each voxel (i, j, k)."""
    indices: Any = ndimage.distance_transform_edt(
        cores == 0,
        sampling=spacing_mm,
        return_distances=False,
        return_indices=True,
    )
    return np.asarray(cores[tuple(indices)])
