"""Intensity statistics of a data set in little memory: exact for integers, percentiles sampled for floats.

Every case has the same weight, whatever its size, as in nnU-Net's fingerprint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fseft.errors import FseftError
from fseft.schemas import IntensityStats

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Array: TypeAlias = NDArray[Any]

SAMPLE = 100_000  # values kept of a case that has no histogram
SPAN = 1 << 20  # widest range of whole numbers that is counted
EXACT = 1 << 53  # float64 holds all whole numbers up to here
CHUNK = 1 << 20  # values in work at a time


@dataclass(frozen=True, eq=False)
class CaseIntensities:
    """The intensities of one channel of one case: its moments, and its distribution.

    Attributes:
        count: Number of values that were measured.
        mean: Mean of all values.
        variance: Population variance of all values.
        values: Distinct values (histogram) or a random sample, ascending; never empty unless `count` is 0.
        counts: How often each of `values` was seen.
    """

    count: int
    mean: float
    variance: float
    minimum: float
    maximum: float
    values: Array
    counts: Array


def measure_intensities(values: Array, *, seed: int = 0) -> CaseIntensities:
    """Take the intensities of one channel of one case, for instance those of its foreground.

    Whole numbers, of integer or float dtype, that span less than 2^20 are counted: all is exact. Of others
    the moments and extremes are exact, and the distribution is a random sample of at most 100 000 values.

    Args:
        values: Real numbers (n,); n may be 0.
        seed: Seed of the sample.

    Returns:
        The case's intensities, for `summarise`.

    Raises:
        FseftError: Some values are not finite.
    """
    if not values.size:
        return CaseIntensities(0, 0.0, 0.0, 0.0, 0.0, np.empty(0), np.empty(0, np.int64))
    low, high = values.min(), values.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise FseftError(
            "the image has voxels that are not finite",
            hint="Replace NaN and infinity and run again.",
        )
    low, high = low.item(), high.item()
    if high - low < SPAN and max(-low, high) < EXACT and _whole(values):
        support, counts = _count(values, int(low), int(high))
        mean, variance = _weighted_moments(support, counts)
    else:
        support, counts = np.unique(_sample(values, seed), return_counts=True)
        mean, variance = _moments(values)
    return CaseIntensities(values.size, mean, variance, float(low), float(high), support, counts)


def summarise(cases: Sequence[CaseIntensities]) -> IntensityStats | None:
    """Pool the cases, each with the same weight; None where no case has a value."""
    cases = [case for case in cases if case.count]
    if not cases:
        return None
    means = np.array([case.mean for case in cases])
    # Law of total variance: the mean variance within cases, and the variance between their means.
    variance = np.mean([case.variance for case in cases]) + means.var()
    low, median, high = _percentiles(cases, (0.005, 0.5, 0.995))
    return IntensityStats(
        mean=float(means.mean()),
        std=float(np.sqrt(variance)),
        median=median,
        minimum=min(case.minimum for case in cases),
        maximum=max(case.maximum for case in cases),
        percentile_00_5=low,
        percentile_99_5=high,
    )


def _percentiles(cases: Sequence[CaseIntensities], levels: Sequence[float]) -> list[float]:
    """The smallest value at which the weighted CDF reaches each level."""
    values = np.concatenate([case.values for case in cases])
    weights = np.concatenate([case.counts / case.counts.sum() for case in cases])
    order = np.argsort(values, kind="stable")
    cdf = np.cumsum(weights[order])
    # A level that the CDF meets exactly must not be missed by rounding.
    places = np.searchsorted(cdf, np.array(levels) * (cdf[-1] * (1 - 1e-12)))
    return [float(value) for value in values[order][places]]


def _chunks(values: Array) -> Iterator[Array]:
    return (values[start : start + CHUNK] for start in range(0, values.size, CHUNK))


def _whole(values: Array) -> bool:
    return values.dtype.kind in "iub" or all(
        (chunk == np.rint(chunk)).all() for chunk in _chunks(values)
    )


def _count(values: Array, low: int, high: int) -> tuple[Array, Array]:
    """Distinct whole numbers from `low` to `high`, and how often each occurs."""
    counts = np.zeros(high - low + 1, np.int64)
    for chunk in _chunks(values):
        counts += np.bincount(chunk.astype(np.int64) - low, minlength=counts.size)
    seen = np.flatnonzero(counts)
    return seen + low, counts[seen]


def _sample(values: Array, seed: int) -> Array:
    if values.size <= SAMPLE:
        return values
    return values[
        np.random.default_rng(seed).choice(values.size, SAMPLE, replace=False, shuffle=False)
    ]


def _weighted_moments(values: Array, counts: Array) -> tuple[float, float]:
    mean = np.average(values, weights=counts)
    return float(mean), float(np.average((values - mean) ** 2, weights=counts))


def _moments(values: Array) -> tuple[float, float]:
    """Mean and population variance in float64, in two passes, without a float64 copy of all values."""
    mean = float(values.mean(dtype=np.float64))
    squares = sum(float(np.square(chunk - np.float64(mean)).sum()) for chunk in _chunks(values))
    return mean, squares / values.size
