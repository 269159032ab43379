"""Intensity normalisation: which scheme, and its arithmetic."""

from __future__ import annotations

import re
from math import ceil, floor
from typing import TYPE_CHECKING, Any

import numpy as np

from fseft.errors import FseftError
from fseft.schemas import Contract, Intensity, IntensityStats, Modality

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fseft.schemas import ChannelMode, Range
    from fseft.volume.geometry import Array, Geometry

AIR_THRESHOLD_HU = -500
"""Voxels below are air or lung; images with such values are CT, unless a channel name denies it."""

_CT = re.compile(r"(ce|nc|ld|hd)?ct|hu")
_MR = re.compile(
    r"mr|mri|mrt|fmri|t1.*|t2.*|flair|adc|dwi|swi|pd|pdw|tof|stir|dixon|dce|gre|epi|haste"
)
_CLIPPING = ("window", "clip-zscore")
_MIN_STD = 1e-8
_MAX_COUNTED = 100_000  # voxels of an image whose values are all counted, not one in 27
_MAX_LABEL_VALUES = 16  # integer images with at most as many distinct values resemble label maps


def guess_modality(channels: Sequence[str], minimum: float) -> Modality:
    """Guesses the modality from the channel names, or from the values if they do not say it.

    Args:
        channels: Names as in `dataset.json`, such as "CT", "T1" or "FLAIR".
        minimum: Smallest stored value.

    Examples:
        >>> guess_modality(["FLAIR", "T1ce"], 0)
        'mr'
        >>> guess_modality(["image"], -1024)
        'ct'
    """
    modalities = {_modality_of_name(name) for name in channels}
    if modalities == {"ct"}:
        return "ct"
    if modalities == {"mr"}:
        return "mr"
    if modalities == {"other"} and minimum <= AIR_THRESHOLD_HU:
        return "ct"
    return "other"


def _modality_of_name(name: str) -> Modality:
    words = re.split(r"[^a-z0-9]+", name.casefold())
    if any(_CT.fullmatch(word) for word in words):
        return "ct"
    return "mr" if any(_MR.fullmatch(word) for word in words) else "other"


def modality_name(modality: Modality) -> str:
    """Returns the name of a modality for messages.

    Examples:
        >>> modality_name("mr"), modality_name("other")
        ('MR', 'unknown')
    """
    return "unknown" if modality == "other" else modality.upper()


def modality_warnings(array: Array, expected: Modality) -> list[str]:
    """Describes signs that a scan is a label map, or of another modality than the training data.

    Args:
        array: (C, i, j, k), as stored.
        expected: Modality of the training data.
    """
    warnings = []
    if array.dtype.kind in "iu":
        step = 3 if array.size > _MAX_COUNTED else 1
        count = len(np.unique(array[..., ::step, ::step, ::step]))
        if count <= _MAX_LABEL_VALUES:
            warnings.append(f"it contains {count} different values, as a label map does")
    low = array.min()
    if expected == "ct" and low > AIR_THRESHOLD_HU:
        warnings.append(
            f"no value is below {AIR_THRESHOLD_HU} (the smallest is {low:g}): not CT in HU, or "
            "cropped to the inside of the body"
        )
    if expected == "mr" and low <= AIR_THRESHOLD_HU:
        warnings.append(f"values reach {low:g}, as in CT, but the adapter was trained on MR")
    return warnings


def select_intensity_scheme(
    contract: Contract, modality: Modality, stats: Sequence[IntensityStats]
) -> tuple[tuple[Intensity, ...], str]:
    """Chooses the normalisation of every channel.

    The model's contract takes precedence. Otherwise nnU-Net's rules apply (Isensee et al., Nature
    Methods 18, 2021): CT is clipped to the 0.5 and 99.5 percentiles of the foreground and z-scored
    with its mean and standard deviation; other modalities are z-scored case by case.

    Args:
        contract: Input that the model expects.
        modality: Modality of the dataset.
        stats: Foreground intensities, one per channel.

    Returns:
        One scheme per channel, and the reason.
    """
    if modality in contract.intensity:
        scheme = contract.intensity[modality]
        return (scheme,) * len(stats), "as the model was trained"
    name = "this modality" if modality == "other" else modality_name(modality)
    gap = f"the model defines no intensity scale for {name}; " if contract.intensity else ""
    if modality == "ct":
        schemes = tuple(map(_foreground_scheme, stats))
        return schemes, f"{gap}nnU-Net's rule for CT, from the foreground"
    scheme = Intensity(scheme="zscore")
    reason = f"{gap}no fixed unit, so each case by its mean and standard deviation"
    return (scheme,) * len(stats), reason


def _foreground_scheme(stats: IntensityStats) -> Intensity:
    return Intensity(
        scheme="clip-zscore",
        low=stats.percentile_00_5,
        high=stats.percentile_99_5,
        mean=stats.mean,
        std=stats.std,
    )


def pool_intensity_statistics(datasets: Sequence[IntensityStats]) -> Intensity:
    """Returns one scheme for CT of several datasets, each with the same weight.

    A tissue gets the same value in all of them. Values outside the foregrounds of all datasets are
    clipped, as one may contain lungs and another livers.

    Args:
        datasets: Foreground intensities of one channel of each dataset.
    """
    means = np.array([stats.mean for stats in datasets])
    stds = np.array([stats.std for stats in datasets])
    variance = (stds**2).mean() + means.var()
    return Intensity(
        scheme="clip-zscore",
        low=min(stats.percentile_00_5 for stats in datasets),
        high=max(stats.percentile_99_5 for stats in datasets),
        mean=float(means.mean()),
        std=float(np.sqrt(variance)),
    )


def intensity_ranges(
    scan: Array, geometry: Geometry, intensity: Sequence[Intensity]
) -> tuple[Range, ...]:
    """Returns the extremes of each channel of a scan, or the percentiles of its scheme.

    Args:
        scan: (C, i, j, k), as stored.
        geometry: Its grid.
        intensity: One scheme per channel.
    """
    ranges = []
    for channel, scheme in zip(scan, intensity, strict=False):
        if scheme.percentiles is None or scheme.maps_extremes:
            ranges.append((float(channel.min()), float(channel.max())))
        else:
            ranges.append(_percentiles(channel, geometry, scheme.percentiles, scheme.cube_mm))
    return tuple(ranges)


def _percentiles(
    channel: Array, geometry: Geometry, percentiles: Range, cube_mm: float | None
) -> Range:
    """Returns two percentiles of the values (i, j, k) in a cube, or in the whole scan."""
    values = channel.reshape(-1)
    count = len(values)
    if cube_mm is not None:
        count = max(1, round(cube_mm**3 / geometry.voxel_volume_mm3))
    lowest, highest = (percentile / 100 * count for percentile in percentiles)
    ranks = [floor(lowest), ceil(highest) - 1]
    # Counted from the largest value: what a cube has more or less than the scan is air.
    indices = np.clip(np.add(ranks, len(values) - count), 0, len(values) - 1)
    low, high = np.partition(values, indices)[indices]
    return float(low), float(high)


def normalise(
    array: Array,
    intensity: Sequence[Intensity],
    case_stats: Mapping[str, Any],
    channel_mode: ChannelMode | None = None,
) -> Array:
    """Converts stored intensities to network input; equal for whole volumes and patches.

    Args:
        array: (C, i, j, k), as stored.
        intensity: One scheme per channel.
        case_stats: `means`, `stds`, `minima` and `maxima` of the whole case, one per channel, as in
            the metadata of a cached case; used by the schemes `zscore`, `minmax` and `percentiles`.
        channel_mode: `mean` averages the normalised channels.

    Returns:
        A new float32 array of the same shape, with one channel for `mean`.

    Raises:
        FseftError: The numbers of channels and schemes differ, or a scheme lacks a value.

    Examples:
        >>> import numpy as np
        >>> window = Intensity(scheme="window", low=-200, high=200)
        >>> hu = np.array([-1000, -100, 300], np.int16).reshape(1, 1, 1, 3)
        >>> normalise(hu, [window], {}).ravel().tolist()
        [0.0, 0.25, 1.0]
    """
    if len(array) != len(intensity):
        cause = f"the image has {len(array)} channels, the plan {len(intensity)}"
        raise FseftError(cause, hint="Make the plan again for this dataset.")
    result = clip_intensities(array, intensity)
    for channel, scheme in enumerate(intensity):
        values = result[channel]
        outside = values == 0 if scheme.region == "nonzero" else None
        shift, scale = _shift_and_scale(scheme, case_stats, channel)
        values -= np.float32(shift)
        values /= np.float32(max(scale, _MIN_STD))
        if outside is not None:
            values[outside] = 0
    return result.mean(axis=0, keepdims=True) if channel_mode == "mean" else result


def clip_intensities(array: Array, intensity: Sequence[Intensity]) -> Array:
    """Returns a copy of an image (C, i, j, k) in float32, clipped where a scheme has limits.

    Args:
        array: Image (C, i, j, k) of any real dtype, which stays as it is.
        intensity: Scheme of each channel.

    Raises:
        FseftError: A scheme lacks a limit.
    """
    result = array.astype(np.float32)
    for values, scheme in zip(result, intensity, strict=True):
        if scheme.scheme in _CLIPPING:
            np.clip(values, _parameter(scheme, "low"), _parameter(scheme, "high"), out=values)
    return result


def _shift_and_scale(
    scheme: Intensity, case_stats: Mapping[str, Any], channel: int
) -> tuple[float, float]:
    """Returns the number to subtract, and the number by which to divide then."""
    if scheme.scheme == "window":
        low, high = _parameter(scheme, "low"), _parameter(scheme, "high")
        return low, high - low
    if scheme.scheme == "clip-zscore":
        return _parameter(scheme, "mean"), _parameter(scheme, "std")
    if scheme.scheme == "minmax":
        low = float(case_stats["minima"][channel])
        high = float(case_stats["maxima"][channel])
        return (low + high) / 2, (high - low) / 2
    if scheme.scheme == "percentiles":
        low = float(case_stats["minima"][channel])
        return low, float(case_stats["maxima"][channel]) - low
    mean, std = case_stats["means"][channel], case_stats["stds"][channel]
    return float(mean), float(std)


def _parameter(scheme: Intensity, field: str) -> float:
    value: float | None = getattr(scheme, field)
    if value is None:
        cause = f"the intensity scheme {scheme.scheme!r} has no {field!r}"
        raise FseftError(cause, hint="Repair the plan.")
    return value
