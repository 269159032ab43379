"""Rules of planning: patch size, and how well a preprocessing contract suits a dataset."""

from __future__ import annotations

from math import ceil, prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fseft.volume.fingerprint import AXES, permute_to_orientation
from fseft.volume.intensity import modality_name

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from fseft.schemas import Contract, Fingerprint, Intensity, Millimetres, Preprocessing, Triple

Array = npt.NDArray[Any]

_MAX_PATCH_VOXELS = 256**3  # of a patch before it is shrunk to the budget, as in nnU-Net
_MIN_STRUCTURE_VOXELS = 2  # along each axis
_MAX_CLIPPED_FRACTION = 0.05  # of the foreground's intensity range


def resampled_shape(fingerprint: Fingerprint, orientation: str, spacing_mm: Millimetres) -> Triple:
    """Returns the median shape after crop and resampling.

    Args:
        fingerprint: Fingerprint of the dataset.
        orientation: Axes of the result, a three-letter code.
        spacing_mm: Spacing along these axes.
    """
    shapes = []
    for case in fingerprint.cases:
        voxels = permute_to_orientation(case.shape_after_crop, case.orientation, orientation)
        spacing = permute_to_orientation(case.spacing_mm, case.orientation, orientation)
        shapes.append(np.multiply(voxels, spacing) / spacing_mm)
    median = np.rint(np.median(shapes, axis=0))
    i, j, k = np.maximum(1, median).astype(int).tolist()
    return i, j, k


def patch_size(
    spacing_mm: Millimetres,
    median_shape: Triple,
    divisor: Triple,
    minimum: Triple,
    voxel_budget: int,
) -> Triple:
    """Returns a patch with sides of about equal length in mm, limited by the volumes' size.

    Args:
        spacing_mm: Spacing of the network's grid.
        median_shape: Median shape of the volumes on that grid; a side is not longer than this,
            rounded up to a multiple of `divisor`.
        divisor: Each side is a multiple of it.
        minimum: Smallest patch.
        voxel_budget: Largest number of voxels, unless `minimum` has more.

    Examples:
        >>> patch_size((1, 1, 4), (500, 500, 200), (8, 8, 8), (32, 32, 8), 64**3)
        (104, 104, 24)
    """
    volume_mm3 = max(voxel_budget, _MAX_PATCH_VOXELS) * prod(spacing_mm)
    edge_mm = volume_mm3 ** (1 / 3)
    sides = []
    for axis in range(3):
        cube = _round_up(edge_mm / spacing_mm[axis], divisor[axis])
        volume = _round_up(median_shape[axis], divisor[axis])
        smallest = _round_up(minimum[axis], divisor[axis])
        sides.append(max(smallest, min(cube, volume)))
    patch: Triple = (sides[0], sides[1], sides[2])
    while prod(patch) > voxel_budget:
        smaller = shrink_patch(patch, spacing_mm, divisor, minimum, median_shape)
        if smaller is None:
            break
        patch = smaller
    return patch


def shrink_patch(
    patch: Triple,
    spacing_mm: Millimetres,
    divisor: Triple,
    minimum: Triple,
    median_shape: Triple = (1, 1, 1),
) -> Triple | None:
    """Returns the patch one step shorter along its longest axis in mm, or None if it is minimal.

    nnU-Net shortens the axis that covers most of the volume, which leads to flat patches in flat
    volumes.

    Args:
        patch: Voxels along each axis.
        spacing_mm: Spacing of the network's grid.
        divisor: Size of a step along each axis.
        minimum: Smallest patch.
        median_shape: Median shape of the volumes; of two axes as long, the one that covers more of
            it is shortened, in whatever order the axes are.
    """
    axes = [axis for axis in range(3) if patch[axis] - divisor[axis] >= minimum[axis]]
    if not axes:
        return None
    lengths = {
        axis: (patch[axis] * spacing_mm[axis], patch[axis] / median_shape[axis]) for axis in axes
    }
    longest = max(axes, key=lambda axis: lengths[axis])
    sides = list(patch)
    sides[longest] -= divisor[longest]
    return sides[0], sides[1], sides[2]


def check_contract(
    contract: Contract, fingerprint: Fingerprint, chosen: Preprocessing
) -> list[str]:
    """Returns warnings where the preprocessing harms this dataset, each with a remedy.

    Args:
        contract: Input that the model expects.
        fingerprint: Fingerprint of the dataset.
        chosen: Preprocessing of the plan.
    """
    return [
        *_foreign_modality(contract, fingerprint),
        *_small_structures(fingerprint, chosen),
        *_large_structures(fingerprint, chosen),
    ]


def _foreign_modality(contract: Contract, fingerprint: Fingerprint) -> list[str]:
    if not contract.intensity or fingerprint.modality in contract.intensity:
        return []
    modalities = " and ".join(modality.upper() for modality in contract.intensity)
    if fingerprint.modality == "other":
        example = '{"channel_names": {"0": "MR"}}'
        remedy = f"if it is one of them, write it to dataset.json, as in {example}"
        return [f"the model was trained on {modalities}; the modality here is unknown: {remedy}"]
    remedy = "expect worse results, or use a model for this modality"
    name = modality_name(fingerprint.modality)
    return [f"the model was trained on {modalities}, not {name}: {remedy}"]


def describe_clipping(contract: Contract, fingerprint: Fingerprint) -> str:
    """Describes how much of the intensities of the structures the window of a model clips.

    Args:
        contract: Input that the model expects.
        fingerprint: Fingerprint of the dataset.

    Returns:
        The fraction of the range between the percentiles 0.5 and 99.5, by channel; empty if the
        window keeps nearly all of it.
    """
    window = contract.intensity.get(fingerprint.modality)
    if window is None or window.low is None or window.high is None:
        return ""
    parts = []
    for channel, stats in zip(fingerprint.channels, fingerprint.intensities, strict=True):
        low, high = stats.percentile_00_5, stats.percentile_99_5
        clipped = _fraction_outside(window, low, high)
        if clipped > _MAX_CLIPPED_FRACTION:
            values = f"values of the structures in {channel} ({low:g} to {high:g})"
            parts.append(f"clips {clipped:.0%} of the range of the {values}")
    return "; ".join(parts)


def _fraction_outside(window: Intensity, low: float, high: float) -> float:
    """Returns the fraction of the range from `low` to `high` that the window clips."""
    if high <= low:
        return 0.0
    inside = np.clip([low, high], window.low, window.high)
    return float(1 - np.ptp(inside) / (high - low))


def _small_structures(fingerprint: Fingerprint, chosen: Preprocessing) -> list[str]:
    """Warns of structures under two voxels along an axis, or in volume, in half of the cases."""
    warnings = []
    spacing_mm = chosen.spacing_mm
    voxel_mm = prod(spacing_mm) ** (1 / 3)
    for name, extent_mm in median_extents(fingerprint, chosen.orientation).items():
        # Scattered spots have a large bounding box and few voxels: compare the cube of equal
        # volume.
        volume_mm3 = fingerprint.classes[name].median_volume_mm3 or 0.0
        cube_mm = volume_mm3 ** (1 / 3)
        shrinkage = min(1.0, cube_mm / (_MIN_STRUCTURE_VOXELS * voxel_mm))
        better_mm = np.minimum(
            extent_mm / _MIN_STRUCTURE_VOXELS, np.multiply(spacing_mm, shrinkage)
        )
        if (better_mm < spacing_mm).any():
            warnings.append(
                f"{name} is {show_mm(extent_mm)} mm and {volume_mm3 / 1000:.2g} ml in half of the "
                f"cases, under {_MIN_STRUCTURE_VOXELS} voxels at {show_mm(spacing_mm)} mm; "
                f"a model with a spacing of {show_mm(better_mm)} mm would resolve it"
            )
    return warnings


def _large_structures(fingerprint: Fingerprint, chosen: Preprocessing) -> list[str]:
    """Warns of structures longer than the patch, with the spacing at which the largest fits."""
    patch_mm = np.multiply(chosen.patch_size, chosen.spacing_mm)
    extents = _maximum_extents(fingerprint, chosen.orientation)
    ratios = {name: extent_mm / patch_mm for name, extent_mm in extents.items()}
    larger = [name for name, ratio in ratios.items() if ratio.max() > 1]
    if not larger:
        return []
    largest = max(larger, key=lambda name: float(ratios[name].max()))
    others = f" and {len(larger) - 1} more are" if len(larger) > 1 else " is"
    better_mm = np.multiply(chosen.spacing_mm, np.maximum(1, ratios[largest]))
    warning = (
        f"{largest} ({show_mm(extents[largest])} mm){others} larger than the patch "
        f"({show_mm(patch_mm)} mm), so that the network sees a part at a time; a model with a "
        f"larger patch, or a spacing of {show_mm(better_mm)} mm, would see the whole"
    )
    return [warning]


def _maximum_extents(fingerprint: Fingerprint, orientation: str) -> dict[str, Array]:
    """Returns the maximum extent of each structure in mm, along the axes of an orientation."""
    extents = {}
    for name, structure in fingerprint.classes.items():
        if structure.maximum_extent_mm is not None:
            extent_mm = permute_to_orientation(structure.maximum_extent_mm, AXES, orientation)
            extents[name] = np.asarray(extent_mm)
    return extents


def rare_structures(
    fingerprint: Fingerprint, structures: Collection[str] | None = None
) -> list[str]:
    """Returns a warning of structures that a single case of a dataset has.

    Args:
        fingerprint: Fingerprint of the dataset.
        structures: Names of the structures to consider; None for all.
    """
    rare = [
        name
        for name, structure in fingerprint.classes.items()
        if structure.cases == 1 and (structures is None or name in structures)
    ]
    if not rare or len(fingerprint.cases) == 1:
        return []
    warning = (
        f"only one case has {', '.join(rare)}: its result cannot be validated on another case; "
        "label one more"
    )
    return [warning]


def median_extents(fingerprint: Fingerprint, orientation: str) -> Mapping[str, Array]:
    """Returns the median extent of each structure over the cases that have it.

    Args:
        fingerprint: Fingerprint of the dataset.
        orientation: Axes of the result, a three-letter code.

    Returns:
        Structure -> array (3,) in mm, along the axes of the orientation.
    """
    extents: dict[str, list[Millimetres]] = {}
    for case in fingerprint.cases:
        for name, sides in case.extents_mm.items():
            permuted = permute_to_orientation(sides, case.orientation, orientation)
            extents.setdefault(name, []).append(permuted)
    return {name: np.median(sides, axis=0) for name, sides in extents.items()}


def show_sides(values: Sequence[float]) -> str:
    """Formats lengths along three axes as `64×64×32`."""
    return "×".join(f"{value:.4g}" for value in values)


def show_mm(values: Sequence[float] | Array) -> str:
    """Formats millimetres along three axes as `1.5×1.5×5`."""
    return "×".join(f"{value:.3g}" for value in values)


def _round_up(length: float, step: int) -> int:
    return ceil(length / step - 1e-9) * step
