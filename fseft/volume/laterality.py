"""Left and right of a pair that was drawn as one: by its components and by the midline of the body.

The midline is the plane that mirrors the body onto itself, not the image's middle: patients lie turned, and beside
the centre. Arrays are RAS: the first axis grows to the patient's right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage, optimize

from fseft.volume.geometry import bounding_box, reorient
from fseft.volume.image import Volume
from fseft.volume.intensity import AIR_THRESHOLD_HU

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fseft.schemas import Millimetres, Modality
    from fseft.volume.geometry import Array

COARSE_MM = 6.0  # a body is symmetric to no less than this
POINTS = 20_000  # of the body, that are mirrored
MIRRORED = 0.85  # share of the visible body with a mirror image, from which the midline is trusted
SEEN = 0.5  # share of the body whose mirror image the field of view should hold
LEANING = 0.02  # what speaks for a plane that hides less, and is less oblique, where symmetry cannot decide
OVERHANG = 0.1  # share of a component beyond the midline that changes nothing
SPECK = 0.02  # share of the structure that is not worth a doubt
MAIN = 0.2  # share of the structure from which a component may be one of the pair

_TOUCHING = np.ones((3, 3, 3), bool)


@dataclass(frozen=True)
class Midline:
    """The plane i = `offset_mm` + `slopes` · (j, k), in mm from the centre of the first voxel.

    Attributes:
        offset_mm: Where it cuts the first axis.
        slopes: Along the second and the third axis.
        mirrored: Share of the body with body at its mirror image, of what has its mirror image in the field of view.
        seen: Share of the body that has.
    """

    offset_mm: float
    slopes: tuple[float, float]
    mirrored: float = 1.0
    seen: float = 1.0

    @property
    def doubtful(self) -> bool:
        """Whether too little of the body is symmetric."""
        return self.mirrored < MIRRORED or self.seen < SEEN

    def rightwards_mm(self, i: Array, j: Array, k: Array) -> Array:
        """How far points (mm) lie right of the plane, along the first axis."""
        return np.asarray(i - self.offset_mm - self.slopes[0] * j - self.slopes[1] * k)


@dataclass(frozen=True, eq=False)
class LeftRightMasks:
    """`left` and `right`, (i, j, k) bool, are together all of the pair; `doubts` say why they may be wrong."""

    left: Array
    right: Array
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True)
class LeftRightPair:
    """Label values that a whole is divided into, and whether both sides are expected in every patient."""

    left: int
    right: int
    expect_both: bool = True


def find_midline(body: Array, spacing_mm: Millimetres) -> Midline:
    """The plane that mirrors the body best.

    What lies outside the field of view speaks neither for nor against a plane: a body that is cut on one side keeps
    its midline while there is enough of it on both.

    Args:
        body: (i, j, k) bool, RAS; tables, tubes and holes in it do not matter.
        spacing_mm: Along the axes.
    """
    coarse, step = _coarse(body, spacing_mm)
    voxels = np.argwhere(coarse)
    if not len(voxels):
        return Midline(step[0] * coarse.shape[0] / 2, (0.0, 0.0), mirrored=0.0, seen=0.0)
    points = voxels[:: 1 + len(voxels) // POINTS] * step
    centre = points.mean(axis=0)

    def through(plane: Sequence[float]) -> Midline:
        shift, b, c = map(float, plane)
        offset = float(centre[0] + shift - b * centre[1] - c * centre[2])
        return Midline(offset, (b, c), *_symmetry(Midline(offset, (b, c)), coarse, step, points))

    def cost(plane: Sequence[float]) -> float:
        found = through(plane)
        slope = found.slopes[0] ** 2 + found.slopes[1] ** 2
        return -found.mirrored * min(1.0, found.seen / SEEN) - LEANING * (found.seen - 10 * slope)

    shifts = np.linspace(-0.35, 0.35, 15) * np.ptp(points[:, 0])
    start = min(
        ((shift, turn, 0.0) for shift in shifts for turn in (-0.3, -0.15, 0.0, 0.15, 0.3)), key=cost
    )
    simplex = np.array(start) + np.vstack([np.zeros(3), np.diag([3 * COARSE_MM, 0.1, 0.1])])
    best = optimize.minimize(
        cost, start, method="Nelder-Mead", options={"initial_simplex": simplex, "maxiter": 150}
    )
    return through(best.x)


def split_sides(
    mask: Array, midline: Midline, spacing_mm: Millimetres, *, expect_both: bool = True
) -> LeftRightMasks:
    """Divide a pair: each component goes to the side of the midline on which it lies.

    A component on both sides, such as a horseshoe kidney or lungs that touch, is divided where it is narrowest, or
    else at the midline.

    Args:
        mask: (i, j, k) bool, RAS.
        midline: Of the body.
        spacing_mm: Along the axes.
        expect_both: Whether one would expect a left and a right one; lesions may be on one side only.
    """
    left, right = np.zeros_like(mask, bool), np.zeros_like(mask, bool)
    total = int(np.count_nonzero(mask))
    if not total:
        return LeftRightMasks(left, right)
    box = bounding_box(mask)
    axes = (np.arange(a, b) * mm for a, b, mm in zip(box.start, box.stop, spacing_mm, strict=True))
    rightwards = midline.rightwards_mm(*np.ix_(*axes))
    components, count = ndimage.label(mask[box.slices], structure=_TOUCHING)
    sizes = np.bincount(components.ravel(), minlength=count + 1)
    beyond = np.bincount(components[rightwards > 0], minlength=count + 1) / np.maximum(sizes, 1)
    is_right = beyond > 0.5
    doubts = ["the body shows no clear midline"] if midline.doubtful else []
    crossing = [n for n in range(1, count + 1) if OVERHANG < beyond[n] < 1 - OVERHANG]
    if expect_both and not any(sizes[n] > SPECK * total for n in crossing):
        doubts += _order(is_right, sizes, components, total)
    half = is_right[components]
    for number in crossing:
        inside = components == number
        half[inside], how = _divided(inside, rightwards, spacing_mm)
        if sizes[number] > SPECK * total:
            doubts.append(f"one component lies on both sides of the midline: {how}")
    right[box.slices] = half & (components > 0)
    left[box.slices] = ~half & (components > 0)
    return LeftRightMasks(left, right, tuple(doubts))


def split_labels(
    labels: Volume, image: Volume, pairs: Mapping[int, LeftRightPair], modality: Modality
) -> tuple[Volume, dict[int, tuple[str, ...]]]:
    """Divide pairs in a label map, on its own grid.

    Args:
        labels: (1, i, j, k), any orientation.
        image: On the same grid; tells the body.
        pairs: Value of a whole -> the values of its sides, which no other structure has.
        modality: Of the image; decides what is air.

    Returns:
        The label map without the wholes, and the doubts about each that occurs.
    """
    there = [value for value in pairs if (labels.array == value).any()]
    if not there:
        return labels, {}
    array, grid = reorient(labels.array[0], labels.geometry, "RAS")
    body, _ = reorient(_body(image.array, modality), labels.geometry, "RAS")
    midline = find_midline(body, grid.spacing_mm)
    highest = max(int(array.max()), *(max(pair.left, pair.right) for pair in pairs.values()))
    array = array.astype(np.min_scalar_type(highest))
    doubts = {}
    for value in there:
        pair = pairs[value]
        halves = split_sides(array == value, midline, grid.spacing_mm, expect_both=pair.expect_both)
        array[halves.left], array[halves.right] = pair.left, pair.right
        doubts[value] = halves.doubts
    turned, _ = reorient(array, grid, labels.geometry.orientation)
    return Volume(turned[np.newaxis], labels.geometry), doubts


def _body(image: Array, modality: Modality) -> Array:
    """(C, i, j, k) -> what is no air in the first channel."""
    first = image[0]
    if modality == "ct":
        return np.asarray(first > AIR_THRESHOLD_HU)
    low, high = np.percentile(first[::4, ::4, ::4], (1, 99))
    return np.asarray(first > low + 0.1 * (high - low))


def _coarse(body: Array, spacing_mm: Millimetres) -> tuple[Array, Array]:
    """The largest piece of the body at about `COARSE_MM`, its cavities filled, and the spacing."""
    strides = [max(1, round(COARSE_MM / mm)) for mm in spacing_mm]
    coarse = body[tuple(slice(None, None, stride) for stride in strides)]
    opened = ndimage.binary_opening(coarse)
    pieces, count = ndimage.label(opened if opened.any() else coarse)
    if count > 1:
        pieces = pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])
    filled = np.stack(
        [ndimage.binary_fill_holes(plane) for plane in np.moveaxis(pieces > 0, 2, 0)], axis=2
    )
    return filled, np.multiply(strides, spacing_mm)


def _symmetry(plane: Midline, body: Array, step: Array, points: Array) -> tuple[float, float]:
    """`mirrored` and `seen` of a plane."""
    normal = np.array([1.0, -plane.slopes[0], -plane.slopes[1]])
    beside = plane.rightwards_mm(*points.T) / (normal @ normal)
    images = np.rint((points - 2 * beside[:, None] * normal) / step).astype(np.intp)
    seen = ((images >= 0) & (images < body.shape)).all(axis=1)
    if not seen.any():
        return 0.0, 0.0
    return float(body[tuple(images[seen].T)].mean()), float(seen.mean())


def _order(is_right: Array, sizes: Array, components: Array, total: int) -> Iterator[str]:
    """Doubts where one side has nothing; two components on one side are told apart by their order, in place."""
    main = [n for n in range(1, len(sizes)) if sizes[n] > MAIN * total]
    sides = {bool(is_right[n]) for n in main}
    if len(sides) == 2 or not main:
        return
    side, other = ("right", "left") if True in sides else ("left", "right")
    if len(main) == 2:
        first, second = sorted(main, key=lambda n: float(np.nonzero(components == n)[0].mean()))
        is_right[first], is_right[second] = False, True
        yield f"both components lie {side} of the midline: told apart by their order"
    else:
        yield f"there is none on the {other}"


def _divided(inside: Array, rightwards: Array, spacing_mm: Millimetres) -> tuple[Array, str]:
    """Which voxels of one component are right: nearest to the core that is left right of the midline by erosion."""
    core, size = inside, np.count_nonzero(inside)
    while np.count_nonzero(core := ndimage.binary_erosion(core)) > MAIN * size:
        cores, count = ndimage.label(core, structure=_TOUCHING)
        sizes = np.bincount(cores.ravel())[1:]
        beyond = ndimage.mean(rightwards > 0, cores, range(1, count + 1))
        main = np.flatnonzero(sizes > MAIN * sizes.sum())
        clear = all(beyond[n] < OVERHANG or beyond[n] > 1 - OVERHANG for n in main)
        if clear and len({bool(beyond[n] > 0.5) for n in main}) == 2:
            cores[~np.isin(cores, main + 1)] = 0
            nearest: Any = ndimage.distance_transform_edt(
                cores == 0, sampling=spacing_mm, return_distances=False, return_indices=True
            )
            is_right = np.append(False, beyond > 0.5)[cores[tuple(nearest)]]
            return is_right[inside], "divided where it is narrowest"
    return (rightwards > 0)[inside], "cut there"
