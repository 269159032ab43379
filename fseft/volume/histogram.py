"""Intensity statistics of a dataset in little memory: exact for integers, sampled for floats.

All cases have the same weight, whatever their size, as in nnU-Net's fingerprint.
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

SAMPLE_SIZE = 100_000  # values kept of a case without a histogram
_MAX_BINS = 1 << 20  # largest range of integers that is counted in a histogram
_MAX_EXACT = 1 << 53  # float64 represents all integers up to this
_CHUNK_SIZE = 1 << 20  # values processed at a time
_LEVELS = (0.005, 0.5, 0.995)


@dataclass(frozen=True, eq=False)
class CaseIntensities:
    """Moments and distribution of the intensities of one channel of one case.

    Attributes:
        count: Number of values.
        mean: Mean of all values.
        variance: Population variance of all values.
        minimum: Smallest value.
        maximum: Largest value.
        values: Distinct values (histogram) or a random sample, ascending; empty only if `count` is
            0.
        counts: Frequency of each of `values`.
    """

    count: int
    mean: float
    variance: float
    minimum: float
    maximum: float
    values: Array
    counts: Array


def measure_intensities(values: Array, *, seed: int = 0) -> CaseIntensities:
    """Measures the intensities of one channel of one case, such as those of its foreground.

    Integers, also those of a float dtype, that span less than 2^20 are counted, and all results are
    exact. Of other values the moments and extremes are exact, and the distribution is a random
    sample of at most 100 000 values.

    Args:
        values: Real numbers (n,); n may be 0.
        seed: Seed of the sample.

    Returns:
        Statistics of the case, for `summarise`.

    Raises:
        FseftError: Some values are not finite.
    """
    if not values.size:
        return CaseIntensities(0, 0.0, 0.0, 0.0, 0.0, np.empty(0), np.empty(0, np.int64))
    low, high = values.min(), values.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        hint = "Replace NaN and infinity by the background value."
        raise FseftError("the image contains voxels of NaN or infinity", hint=hint)
    low, high = low.item(), high.item()
    countable = high - low < _MAX_BINS and max(-low, high) < _MAX_EXACT
    if countable and _all_integers(values):
        support, counts = _count(values, int(low), int(high))
        mean, variance = _weighted_moments(support, counts)
    else:
        support, counts = np.unique(_sample(values, seed), return_counts=True)
        mean, variance = _moments(values)
    return CaseIntensities(values.size, mean, variance, float(low), float(high), support, counts)


def summarise(cases: Sequence[CaseIntensities]) -> IntensityStats | None:
    """Pools the cases with equal weights.

    Args:
        cases: Intensities of one channel of each case.

    Returns:
        Statistics of the channel, or None if no case has a value. Percentiles are values that occur
        (the inverse of the cumulative distribution).
    """
    cases = [case for case in cases if case.count]
    if not cases:
        return None
    means = np.array([case.mean for case in cases])
    variances = np.array([case.variance for case in cases])
    # Law of total variance: the mean variance within cases, plus the variance between their means.
    variance = variances.mean() + means.var()
    low, median, high = _percentiles(cases, _LEVELS)
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
    """Returns the smallest value at which the weighted distribution reaches each level."""
    values = np.concatenate([case.values for case in cases])
    weights = np.concatenate([case.counts / case.counts.sum() for case in cases])
    order = np.argsort(values, kind="stable")
    cumulative = np.cumsum(weights[order])
    # A level that is reached exactly must not be missed by rounding.
    thresholds = np.array(levels) * (cumulative[-1] * (1 - 1e-12))
    positions = np.searchsorted(cumulative, thresholds)
    return [float(value) for value in values[order][positions]]


def _chunks(values: Array) -> Iterator[Array]:
    for start in range(0, values.size, _CHUNK_SIZE):
        yield values[start : start + _CHUNK_SIZE]


def _all_integers(values: Array) -> bool:
    if values.dtype.kind in "iub":
        return True
    return all((chunk == np.rint(chunk)).all() for chunk in _chunks(values))


def _count(values: Array, low: int, high: int) -> tuple[Array, Array]:
    """Returns the distinct integers from `low` to `high` that occur, and their frequencies."""
    counts = np.zeros(high - low + 1, np.int64)
    for chunk in _chunks(values):
        counts += np.bincount(chunk.astype(np.int64) - low, minlength=counts.size)
    bins = np.flatnonzero(counts)
    return bins + low, counts[bins]


def _sample(values: Array, seed: int) -> Array:
    if values.size <= SAMPLE_SIZE:
        return values
    generator = np.random.default_rng(seed)
    indices = generator.choice(values.size, SAMPLE_SIZE, replace=False, shuffle=False)
    return values[indices]


def _weighted_moments(values: Array, counts: Array) -> tuple[float, float]:
    mean = np.average(values, weights=counts)
    variance = np.average((values - mean) ** 2, weights=counts)
    return float(mean), float(variance)


def _moments(values: Array) -> tuple[float, float]:
    """Returns mean and population variance in float64, without a float64 copy of all values."""
    mean = values.mean(dtype=np.float64)
    squares = 0.0
    for chunk in _chunks(values):
        squares += float(np.square(chunk - mean).sum())
    return float(mean), squares / values.size
