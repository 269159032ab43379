"""Rules of the grid: spacing and patch chosen together, for model, structures and device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fseft.errors import pluralise
from fseft.planning.rules import median_extents, patch_size, resampled_shape, show_mm
from fseft.volume.fingerprint import permute_to_orientation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fseft.schemas import Contract, Fingerprint, Millimetres, Triple

Array = npt.NDArray[Any]
RoundTrip = Callable[["Millimetres"], Mapping[str, float]]
"""Function of a spacing: the Dice of each structure after label -> grid -> label."""

SLICED = 1.5  # ratio of spacings from which an axis counts as through-plane
AGREEMENT = 0.9  # fraction of the stacks that must share the through-plane axis
ANISOTROPIC = 2.0  # ratio from which a network with the same kernel along all axes is misled
MIN_BODY_SHARE = 0.25  # of the median volume that a patch must hold, as in nnU-Net
MIN_FOREGROUND_SHARE = 0.8  # of the box around all structures, in a short training
RANGE_TOLERANCE = 0.1  # relative, of the range of spacings that a model was trained on
STEP = 1.03  # factor between spacings that are tried, as in nnU-Net
MIN_STRUCTURE_VOXELS = 2.0  # cube root of the volume of the smallest structure
MIN_MEAN_DICE, MIN_DICE = 0.85, 0.6  # of the labels after the round trip


@dataclass(frozen=True)
class GridProblem:
    """The model, the data and the limits for which a grid is chosen.

    Attributes:
        contract: Input that the model expects.
        fingerprint: Fingerprint of the dataset; extents of structures from the training cases.
        divisor: Each side of a patch is a multiple of it.
        minimum: Smallest patch.
        voxel_budget: Largest number of voxels of a patch, unless the contract prescribes it.
        round_trip: Measures what a spacing costs the labels; None if there are none.
        spacing_mm: Spacing that the user prescribes.
        patch_size: Patch size that the user prescribes.
        foreground_mm: Median sides of the box around all structures, along the axes of the
            contract, if the training is short; else None.
    """

    contract: Contract
    fingerprint: Fingerprint
    divisor: Triple
    minimum: Triple
    voxel_budget: int
    round_trip: RoundTrip | None = None
    spacing_mm: Millimetres | None = None
    patch_size: Triple | None = None
    foreground_mm: Millimetres | None = None

    def patch_at(self, spacing_mm: Millimetres) -> Triple:
        """Returns the patch at a spacing."""
        prescribed = self.patch_size or self.contract.patch_size
        if prescribed is not None:
            return prescribed
        shape = resampled_shape(self.fingerprint, self.contract.orientation, spacing_mm)
        return patch_size(spacing_mm, shape, self.divisor, self.minimum, self.voxel_budget)


@dataclass(frozen=True)
class Grid:
    """The chosen grid.

    Attributes:
        spacing_mm: Spacing along the axes of the contract.
        patch_size: Patch along the same axes.
        reason: Why this spacing.
        rejected: Spacings that were rejected, and why.
        warnings: Requirements that no spacing meets.
    """

    spacing_mm: Millimetres
    patch_size: Triple
    reason: str
    rejected: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def choose_grid(problem: GridProblem) -> Grid:
    """Chooses spacing and patch together.

    Starts from the spacing of the files and coarsens it until a patch holds the largest structure,
    or a quarter of the median volume (nnU-Net's rule for its low resolution), and, in a short
    training, most of the box around all structures; within the range of voxel and structure sizes
    that the model was trained on, and while the labels survive.

    Args:
        problem: Model, data and limits.
    """
    if prescribed := _prescribed_grid(problem):
        return prescribed
    native, reason = native_spacing(problem.fingerprint, problem.contract.orientation)
    start = _within_range(native, problem.contract)
    spacing, shortcomings = _coarsen(start, problem)
    spacing, loss = _keep_labels(spacing, start, problem)
    too_fine = f"{show_mm(start)} mm: {shortcomings}" if spacing != start else ""
    if start != native:
        low, high = problem.contract.spacing_range_mm or (0, 0)
        reason = f"{reason}; within {low:g} to {high:g} mm, as the model was trained"
    return Grid(
        spacing_mm=spacing,
        patch_size=problem.patch_at(spacing),
        reason=_reason(spacing, start, reason, problem),
        rejected=tuple(filter(None, (too_fine, loss))),
        warnings=tuple(_unmet(spacing, problem)),
    )


def native_grid(problem: GridProblem) -> Grid:
    """Keeps the spacing of the files, unless the model or the user prescribes another."""
    if prescribed := _prescribed_grid(problem):
        return prescribed
    spacing, reason = native_spacing(problem.fingerprint, problem.contract.orientation)
    return Grid(spacing, problem.patch_at(spacing), reason)


def _prescribed_grid(problem: GridProblem) -> Grid | None:
    """Returns the grid with the spacing that the user or the model prescribes."""
    if problem.spacing_mm is not None:
        return Grid(problem.spacing_mm, problem.patch_at(problem.spacing_mm), "set by hand")
    trained = problem.contract.spacing_mm
    if trained is not None:
        return Grid(trained, problem.patch_at(trained), "as the model was trained")
    return None


def native_spacing(fingerprint: Fingerprint, orientation: str) -> tuple[Millimetres, str]:
    """Returns the spacing of the files along the axes of an orientation, with the reason.

    Medians are taken over the same role: through-plane or in-plane. Where the stacks of a dataset
    have different through-plane axes, or thick slices, the grid is isotropic with the voxel volume
    of the files: kernels and pooling of the networks are the same along all axes.

    Args:
        fingerprint: Fingerprint of the dataset.
        orientation: Three-letter code of the axes of the result.
    """
    cases = fingerprint.cases
    spacings = [
        permute_to_orientation(case.spacing_mm, case.orientation, orientation) for case in cases
    ]
    matched = _millimetres(np.median(np.sort(spacings, axis=1), axis=0))
    isotropic = _rounded(prod(matched) ** (1 / 3))
    sliced = Counter(axis for spacing in spacings if (axis := _through_plane(spacing)) is not None)
    if sliced and max(sliced.values()) < AGREEMENT * sum(sliced.values()):
        return (
            isotropic,
            f"isotropic: the slices of the files ({show_mm(matched)} mm) differ in axis",
        )
    if matched[2] > ANISOTROPIC * matched[1]:
        return isotropic, f"isotropic, the voxel volume of the files ({show_mm(matched)} mm)"
    shared = max(sliced, key=lambda axis: sliced[axis]) if sliced else None
    agreeing = [spacing for spacing in spacings if _through_plane(spacing) in (None, shared)]
    chosen = _millimetres(np.median(agreeing, axis=0))
    return chosen, f"the median of {pluralise(len(agreeing), 'case')}"


def _through_plane(spacing_mm: Sequence[float]) -> int | None:
    """Returns the axis across the slices, or None for a nearly isotropic case."""
    _, second, largest = sorted(spacing_mm)
    return int(np.argmax(spacing_mm)) if largest > SLICED * second else None


def _within_range(spacing_mm: Millimetres, contract: Contract) -> Millimetres:
    if contract.spacing_range_mm is None:
        return spacing_mm
    clipped = np.clip(spacing_mm, *contract.spacing_range_mm)
    # Sides that are nearly in the range stay: resampling to almost the same grid only blurs.
    is_near = np.isclose(clipped, spacing_mm, rtol=RANGE_TOLERANCE)
    return _millimetres(np.where(is_near, spacing_mm, clipped))


def _coarsen(start: Millimetres, problem: GridProblem) -> tuple[Millimetres, str]:
    """Returns the finest spacing that meets the requirements, and what the start fails at."""

    def disadvantages(spacing_mm: Millimetres) -> list[str]:
        return [*_shortcomings(spacing_mm, problem), *_few_structures(spacing_mm, problem)]

    shortcomings = "; ".join(disadvantages(start))
    limit_mm = _coarsest(problem)
    spacing, target_mm = start, min(start)
    while target_mm < limit_mm and disadvantages(spacing):
        target_mm = min(STEP * target_mm, limit_mm)
        spacing = _raised(start, target_mm)
    return spacing, shortcomings


def _shortcomings(spacing_mm: Millimetres, problem: GridProblem) -> Iterator[str]:
    """Describes why a spacing is too fine."""
    patch_mm = np.multiply(problem.patch_at(spacing_mm), spacing_mm)
    share = body_share(patch_mm, problem)
    name, extent_mm = _largest_structure(problem)
    if share < MIN_BODY_SHARE and (extent_mm > patch_mm + 1e-6).any():
        yield (
            f"a patch ({show_mm(patch_mm)} mm) holds {share:.0%} of the median volume"
            + (f" and not {name} ({show_mm(extent_mm)} mm)" if name else "")
        )
    largest = (problem.contract.structure_range_voxels or (0, np.inf))[1]
    sizes_mm = _sizes_mm(problem.fingerprint)
    voxels = max(sizes_mm.values(), default=0) / prod(spacing_mm) ** (1 / 3)
    if voxels > largest:
        yield f"structures up to {voxels:.3g} voxels; the model was trained on up to {largest:.3g}"


def _few_structures(spacing_mm: Millimetres, problem: GridProblem) -> Iterator[str]:
    """Describes why a spacing is too fine for a short training.

    In few steps, a network learns more from crops that show most structures, at the expense of
    detail that only a longer training would learn.
    """
    if problem.foreground_mm is None:
        return
    patch_mm = np.multiply(problem.patch_at(spacing_mm), spacing_mm)
    box_mm = np.asarray(problem.foreground_mm)
    share = float(np.prod(np.minimum(patch_mm, box_mm)) / np.prod(box_mm))
    if share < MIN_FOREGROUND_SHARE:
        yield (
            f"a patch ({show_mm(patch_mm)} mm) holds {share:.0%} of the box around the structures "
            f"({show_mm(box_mm)} mm); in a short training, it should hold "
            f"{MIN_FOREGROUND_SHARE:.0%}"
        )


def body_share(patch_mm: Array, problem: GridProblem) -> float:
    """Returns the fraction of the median volume that a patch holds.

    Args:
        patch_mm: Sides of the patch in mm, (3,), along the axes of the contract's orientation.
        problem: Provides orientation and fingerprint.

    Returns:
        Fraction of the volume, 0 to 1.
    """
    axes = problem.contract.orientation
    body_mm = resampled_shape(problem.fingerprint, axes, (1.0, 1.0, 1.0))
    return float(np.prod(np.minimum(patch_mm, body_mm)) / np.prod(body_mm))


def _largest_structure(problem: GridProblem) -> tuple[str, Array]:
    """Returns the structure of the largest volume and its median extent; infinite if none is."""
    sizes_mm = _sizes_mm(problem.fingerprint)
    extents_mm = median_extents(problem.fingerprint, problem.contract.orientation)
    if not sizes_mm:
        return "", np.full(3, np.inf)
    name = max(sizes_mm, key=lambda name: sizes_mm[name])
    return name, extents_mm[name]


def _sizes_mm(fingerprint: Fingerprint) -> dict[str, float]:
    """Returns the cube root of the median volume of each structure."""
    return {
        name: structure.median_volume_mm3 ** (1 / 3)
        for name, structure in fingerprint.classes.items()
        if structure.median_volume_mm3
    }


def _coarsest(problem: GridProblem) -> float:
    """Returns the largest spacing that the model and the smallest structure allow."""
    contract, sizes_mm = problem.contract, list(_sizes_mm(problem.fingerprint).values())
    limits = [(contract.spacing_range_mm or (0, np.inf))[1]]
    if sizes_mm:
        limits.append(min(sizes_mm) / MIN_STRUCTURE_VOXELS)
    if sizes_mm and contract.structure_range_voxels:
        # Most structures should be of a size in the model's training data, not the smallest one.
        limits.append(float(np.median(sizes_mm)) / contract.structure_range_voxels[0])
    return min(limits)


def _keep_labels(
    spacing_mm: Millimetres, start: Millimetres, problem: GridProblem
) -> tuple[Millimetres, str]:
    """Refines a coarsened spacing until the labels survive; says which spacing they did not."""
    lost = ""
    while problem.round_trip and spacing_mm != start:
        dice = problem.round_trip(spacing_mm)
        if not dice or _survive(dice):
            break
        lost = lost or f"{show_mm(spacing_mm)} mm: {_describe(dice)}"
        target_mm = min(spacing_mm) / STEP**3
        # Rounding may raise the target, but by less than STEP**3: each turn is finer.
        spacing_mm = _raised(start, target_mm) if target_mm > min(start) else start
    return spacing_mm, lost


def _survive(dice: Mapping[str, float]) -> bool:
    values = list(dice.values())
    mean = float(np.mean(values))
    return min(values) >= MIN_DICE and mean >= MIN_MEAN_DICE


def _describe(dice: Mapping[str, float]) -> str:
    mean = np.mean(list(dice.values()))
    worst, lowest = min(dice.items(), key=lambda item: item[1])
    if len(dice) == 1:
        return f"labels of {worst}, resampled to it and back: Dice {lowest:.2f}"
    return f"labels, resampled to it and back: Dice {mean:.2f}, {worst} {lowest:.2f}"


def _reason(spacing_mm: Millimetres, start: Millimetres, native: str, problem: GridProblem) -> str:
    parts = [native if spacing_mm == start else f"coarser than {show_mm(start)} mm ({native})"]
    patch_mm = np.multiply(problem.patch_at(spacing_mm), spacing_mm)
    parts.append(f"a patch holds {body_share(patch_mm, problem):.0%} of the median volume")
    if problem.round_trip and (dice := problem.round_trip(spacing_mm)):
        parts.append(_describe(dice))
    return "; ".join(parts)


def _unmet(spacing_mm: Millimetres, problem: GridProblem) -> Iterator[str]:
    """Warns of requirements that contradict each other."""
    for shortcoming in _shortcomings(spacing_mm, problem):
        limit = f"a spacing above {show_mm(spacing_mm)} mm would lose the smallest structures"
        yield f"{shortcoming}; {limit}: segment small and large structures by two adapters"


def _raised(start: Millimetres, target_mm: float) -> Millimetres:
    """Returns the spacing with all axes at least `target_mm`."""
    return _millimetres([max(side, _round_mm(target_mm)) for side in start])


def _rounded(side_mm: float) -> Millimetres:
    side = _round_mm(side_mm)
    return side, side, side


def _round_mm(side_mm: float) -> float:
    """Rounds to two significant digits, so that similar datasets share a grid."""
    return float(f"{side_mm:.2g}")


def _millimetres(values: Sequence[float] | Array) -> Millimetres:
    i, j, k = (round(float(value), 5) for value in values)
    return i, j, k
