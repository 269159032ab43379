"""The rules of the plan: spacing, patch, and what a contract would do to this dataset. Pure arithmetic."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from fseft.volume.fingerprint import AXES, permute_to_orientation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fseft.schemas import Contract, Fingerprint, Intensity, Millimetres, Preprocessing, Triple

ANISOTROPIC = 3  # times coarser than the other axes, as in nnU-Net
LARGEST = 256**3  # voxels that a patch may have before the budget, as in nnU-Net
LEAST_VOXELS = 2  # across a structure
CLIPPED = 0.05  # share of the foreground's range that may fall out of the window unsaid


def target_spacing(
    spacings: Sequence[Millimetres], shapes: Sequence[Sequence[float]]
) -> Millimetres:
    """The spacing that nnU-Net takes at full resolution (Isensee et al., Nature Methods 18, 2021).

    The median per axis; but where one axis is more than three times coarser than the others, and has less
    than a third of their voxels, its 10th percentile.

    Args:
        spacings: Of each case in mm, all along the same axes.
        shapes: Voxels of each case after the crop, along the same axes.
    """
    spacing, size = np.median(spacings, axis=0), np.median(shapes, axis=0)
    worst = int(np.argmax(spacing))
    others = [axis for axis in range(3) if axis != worst]
    coarsest = spacing[others].max()
    if spacing[worst] > ANISOTROPIC * coarsest and size[worst] * ANISOTROPIC < size[others].min():
        spacing[worst] = max(np.percentile(spacings, 10, axis=0)[worst], coarsest)
    return _millimetres(spacing)


def resampled_shape(fingerprint: Fingerprint, orientation: str, spacing_mm: Millimetres) -> Triple:
    """The median shape after crop and resampling, along the axes of `orientation`."""
    shapes = [
        np.multiply(
            permute_to_orientation(case.shape_after_crop, case.orientation, orientation),
            permute_to_orientation(case.spacing_mm, case.orientation, orientation),
        )
        / spacing_mm
        for case in fingerprint.cases
    ]
    i, j, k = np.maximum(1, np.rint(np.median(shapes, axis=0))).astype(int).tolist()
    return i, j, k


def patch_size(
    spacing_mm: Millimetres,
    median_shape: Triple,
    divisor: Triple,
    minimum: Triple,
    voxel_budget: int,
) -> Triple:
    """A patch that is about as long in mm along each axis, as far as the volumes go.

    Args:
        spacing_mm: Of the network's grid.
        median_shape: Of the volumes on that grid; the patch is no longer than this, rounded up to `divisor`.
        divisor: Each side is a multiple of it.
        minimum: The patch is never smaller.
        voxel_budget: Voxels that the patch may have, unless `minimum` has more.
    """
    edge_mm = (max(voxel_budget, LARGEST) * prod(spacing_mm)) ** (1 / 3)
    sides = zip(spacing_mm, median_shape, divisor, minimum, strict=True)
    i, j, k = (
        max(_up(least, step), min(_up(edge_mm / mm, step), _up(size, step)))
        for mm, size, step, least in sides
    )
    patch = i, j, k
    while prod(patch) > voxel_budget and (
        smaller := shrink_patch(patch, spacing_mm, divisor, minimum)
    ):
        patch = smaller
    return patch


def shrink_patch(
    patch: Triple, spacing_mm: Millimetres, divisor: Triple, minimum: Triple
) -> Triple | None:
    """One step less along the axis that is longest in mm; None if all are at their minimum.

    nnU-Net shortens the axis that covers most of the volume, which leaves flat patches in flat volumes.
    """
    free = [axis for axis in range(3) if patch[axis] - divisor[axis] >= minimum[axis]]
    if not free:
        return None
    longest = max(free, key=lambda axis: patch[axis] * spacing_mm[axis])
    i, j, k = (
        side - step * (axis == longest)
        for axis, (side, step) in enumerate(zip(patch, divisor, strict=True))
    )
    return i, j, k


def check_contract(
    contract: Contract, fingerprint: Fingerprint, chosen: Preprocessing
) -> list[str]:
    """What will hurt, each with the change that would help."""
    return [
        *_foreign_modality(contract, fingerprint),
        *_clipped_window(contract, fingerprint),
        *_small_structures(fingerprint, chosen),
        *_large_structures(contract, fingerprint, chosen),
        *_rare_structures(fingerprint),
    ]


def _foreign_modality(contract: Contract, fingerprint: Fingerprint) -> list[str]:
    if not contract.intensity or fingerprint.modality in contract.intensity:
        return []
    known = " and ".join(contract.intensity)
    found = f"the model was trained on {known}, these images are {fingerprint.modality}: expect less of it"
    return [f"{found}; take a model for this modality if there is one"]


def _clipped_window(contract: Contract, fingerprint: Fingerprint) -> list[str]:
    window = contract.intensity.get(fingerprint.modality)
    if window is None or window.low is None or window.high is None:
        return []
    warnings = []
    for channel, stats in zip(fingerprint.channels, fingerprint.intensities, strict=True):
        low, high = stats.percentile_00_5, stats.percentile_99_5
        lost = _share_outside(window, low, high)
        if lost > CLIPPED:
            warnings.append(
                f"the model's window [{window.low:g}, {window.high:g}] clips {lost:.0%} of the range of the "
                f"structures in {channel} ({low:g} to {high:g}, percentiles 0.5 and 99.5); a window of "
                f"[{min(low, window.low):g}, {max(high, window.high):g}] would keep it"
            )
    return warnings


def _share_outside(window: Intensity, low: float, high: float) -> float:
    assert window.low is not None  # noqa: S101 - the caller looked
    assert window.high is not None  # noqa: S101
    lost = min(max(window.low - low, 0), high - low) + min(max(high - window.high, 0), high - low)
    return lost / (high - low) if high > low else 0.0


def _small_structures(fingerprint: Fingerprint, chosen: Preprocessing) -> list[str]:
    """Structures that in half of the cases are under two voxels along an axis, or have too few at all."""
    warnings = []
    for name, extent in _median_extents(fingerprint, chosen.orientation).items():
        # Scattered spots have a large box and still few voxels: the cube of equal volume tells them.
        cube_mm = (fingerprint.classes[name].median_volume_mm3 or 0.0) ** (1 / 3)
        shrink = min(1.0, cube_mm / (LEAST_VOXELS * prod(chosen.spacing_mm) ** (1 / 3)))
        better = np.minimum(extent / LEAST_VOXELS, np.multiply(chosen.spacing_mm, shrink))
        if (better < chosen.spacing_mm).any():
            warnings.append(
                f"{name} is {_mm(extent)} mm and {cube_mm**3 / 1000:.2g} ml in half of the cases, under "
                f"{LEAST_VOXELS} voxels at a spacing of {_mm(chosen.spacing_mm)} mm; "
                f"a spacing of {_mm(better)} mm would show it"
            )
    return warnings


def _large_structures(
    contract: Contract, fingerprint: Fingerprint, chosen: Preprocessing
) -> list[str]:
    patch_mm = np.multiply(chosen.patch_size, chosen.spacing_mm)
    excess = {
        name: permute_to_orientation(found.maximum_extent_mm, AXES, chosen.orientation) / patch_mm
        for name, found in fingerprint.classes.items()
        if found.maximum_extent_mm is not None
    }
    larger = {name: ratio for name, ratio in excess.items() if ratio.max() > 1}
    if not larger:
        return []
    name = max(larger, key=lambda name: float(larger[name].max()))
    better = np.multiply(chosen.spacing_mm, np.maximum(1, larger[name]))
    others = f" and {len(larger) - 1} more are" if len(larger) > 1 else " is"
    found = f"{name} ({_mm(larger[name] * patch_mm)} mm){others} larger than the patch ({_mm(patch_mm)} mm)"
    larger_patch = "" if contract.patch_size else "a larger patch (more --memory) or "
    model = ", for which the model was not trained" if contract.spacing_mm else ""
    return [
        f"{found} and never seen as a whole; {larger_patch}a spacing of {_mm(better)} mm would hold it{model}"
    ]


def _rare_structures(fingerprint: Fingerprint) -> list[str]:
    rare = [name for name, found in fingerprint.classes.items() if found.cases == 1]
    if not rare or len(fingerprint.cases) == 1:
        return []
    return [
        f"only one case has {', '.join(rare)}: its result cannot be checked on another; label one more"
    ]


def _median_extents(fingerprint: Fingerprint, orientation: str) -> Mapping[str, np.ndarray]:
    extents: dict[str, list[Millimetres]] = {}
    for case in fingerprint.cases:
        for name, sides in case.extents_mm.items():
            extents.setdefault(name, []).append(
                permute_to_orientation(sides, case.orientation, orientation)
            )
    return {name: np.median(sides, axis=0) for name, sides in extents.items()}


def _up(length: float, step: int) -> int:
    return int(np.ceil(length / step - 1e-9)) * step


def _millimetres(values: Sequence[float] | np.ndarray) -> Millimetres:
    i, j, k = (round(float(value), 5) for value in values)
    return i, j, k


def _mm(values: Sequence[float] | np.ndarray) -> str:
    return "×".join(f"{value:.3g}" for value in values)
