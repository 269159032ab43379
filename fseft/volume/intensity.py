"""Stored intensities to network input, at read: which scheme, and its arithmetic."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from fseft.errors import FseftError
from fseft.schemas import Contract, Intensity, IntensityStats, Modality

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fseft.volume.geometry import Array

AIR_THRESHOLD_HU = -500
"""Voxels below are air or lung; images with values down there are CT unless their channel says otherwise."""

_CT = re.compile(r"(ce|nc|ld|hd)?ct|hu")
_MR = re.compile(
    r"mr|mri|mrt|fmri|t1.*|t2.*|flair|adc|dwi|swi|pd|pdw|tof|stir|dixon|dce|gre|epi|haste"
)
_SMALLEST_STD = 1e-8
_FEW_VALUES = 16


def guess_modality(channels: Sequence[str], minimum: float) -> Modality:
    """What made the images: by the channel names if they tell, else by the values.

    Args:
        channels: Names as in `dataset.json`, such as "CT", "T1" or "FLAIR".
        minimum: The smallest stored value.
    """
    kinds = {_kind(name) for name in channels}
    if kinds == {"ct"}:
        return "ct"
    if kinds == {"mr"}:
        return "mr"
    if kinds == {"other"}:
        return "ct" if minimum <= AIR_THRESHOLD_HU else "other"
    return "other"


def _kind(name: str) -> Modality:
    words = re.split(r"[^a-z0-9]+", name.casefold())
    if any(_CT.fullmatch(word) for word in words):
        return "ct"
    return "mr" if any(_MR.fullmatch(word) for word in words) else "other"


def modality_warnings(array: Array, expected: Modality) -> list[str]:
    """What speaks against a scan being one of the modality that an adapter has learned from.

    Args:
        array: (C, i, j, k), as stored.
        expected: Of the training data.
    """
    found = []
    if (
        array.dtype.kind in "iu"
        and len(values := np.unique(array[..., ::3, ::3, ::3])) <= _FEW_VALUES
    ):
        found.append(f"it holds {len(values)} different values, as a label map does")
    low = array.min()
    if expected == "ct" and low > AIR_THRESHOLD_HU:
        found.append(
            f"no value is below {AIR_THRESHOLD_HU} (the smallest is {low:g}): no CT in HU, or cropped to the inside"
        )
    if expected == "mr" and low <= AIR_THRESHOLD_HU:
        found.append(f"values go down to {low:g}, as in CT, and the adapter has learned on MR")
    return found


def select_intensity_scheme(
    contract: Contract, modality: Modality, stats: Sequence[IntensityStats]
) -> tuple[tuple[Intensity, ...], str]:
    """The scheme of every channel, and why.

    The model's contract goes first. What it leaves open follows nnU-Net (Isensee et al., Nature Methods 18,
    2021): CT is clipped to the 0.5 and 99.5 percentiles of the foreground and z-scored with the foreground's
    mean and standard deviation, anything else is z-scored case by case.

    Args:
        contract: What the model expects.
        modality: Of the dataset.
        stats: Foreground intensities, one per channel.
    """
    if modality in contract.intensity:
        return (contract.intensity[modality],) * len(stats), "as the model was trained"
    silent = f"the model says nothing for {modality}; " if contract.intensity else ""
    if modality == "ct":
        return tuple(map(_clipped, stats)), f"{silent}nnU-Net's rule for CT, from the foreground"
    reason = f"{silent}no fixed unit, so each case by its own mean and deviation"
    return (Intensity(scheme="zscore"),) * len(stats), reason


def _clipped(stats: IntensityStats) -> Intensity:
    return Intensity(
        scheme="clip-zscore",
        low=stats.percentile_00_5,
        high=stats.percentile_99_5,
        mean=stats.mean,
        std=stats.std,
    )


def pool_intensity_statistics(datasets: Sequence[IntensityStats]) -> Intensity:
    """One scheme for CT of several datasets, each with the same weight, so that a tissue looks the same in all.

    Clipped is what lies outside the foregrounds of all of them: one may hold lungs, another livers.
    """
    means, stds = np.array([one.mean for one in datasets]), np.array([one.std for one in datasets])
    return Intensity(
        scheme="clip-zscore",
        low=min(one.percentile_00_5 for one in datasets),
        high=max(one.percentile_99_5 for one in datasets),
        mean=float(means.mean()),
        std=float(np.sqrt((stds**2).mean() + means.var())),
    )


def normalise(array: Array, intensity: Sequence[Intensity], case_stats: Mapping[str, Any]) -> Array:
    """Make network input of stored intensities; works on whole volumes and on patches alike.

    Args:
        array: (C, i, j, k), as stored.
        intensity: One scheme per channel.
        case_stats: `means`, `stds`, `minima` and `maxima` of the whole case, one per channel, as in a cached case's
            meta; read by the schemes `zscore` and `minmax`.

    Returns:
        A fresh float32 array of the same shape.

    Raises:
        FseftError: There are not as many channels as schemes, or a scheme lacks a number.
    """
    if len(array) != len(intensity):
        cause = f"the image has {len(array)} channels, the plan {len(intensity)}"
        raise FseftError(cause, hint="Make the plan again for this dataset.")
    result = array.astype(np.float32)
    for channel, (out, scheme) in enumerate(zip(result, intensity, strict=True)):
        if scheme.scheme in ("window", "clip-zscore"):
            np.clip(out, _given(scheme, "low"), _given(scheme, "high"), out=out)
        shift, scale = _line(scheme, case_stats, channel)
        out -= np.float32(shift)
        out /= np.float32(max(scale, _SMALLEST_STD))
    return result


def _line(scheme: Intensity, case_stats: Mapping[str, Any], channel: int) -> tuple[float, float]:
    """What is subtracted, and then divided by."""
    if scheme.scheme == "window":
        return _given(scheme, "low"), _given(scheme, "high") - _given(scheme, "low")
    if scheme.scheme == "clip-zscore":
        return _given(scheme, "mean"), _given(scheme, "std")
    if scheme.scheme == "minmax":
        low, high = float(case_stats["minima"][channel]), float(case_stats["maxima"][channel])
        return (low + high) / 2, (high - low) / 2
    return float(case_stats["means"][channel]), float(case_stats["stds"][channel])


def _given(scheme: Intensity, field: str) -> float:
    value: float | None = getattr(scheme, field)
    if value is None:
        raise FseftError(
            f"the intensity scheme {scheme.scheme!r} has no {field!r}", hint="Repair the plan."
        )
    return value
