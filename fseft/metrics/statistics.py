"""Paired comparison of two methods: difference of mean scores, with a confidence interval."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from fseft.schemas import FrozenModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    ScoreArray = NDArray[np.floating[Any]]

CONFIDENCE_LEVEL = 0.95
MIN_CASES = 6
"""Fewer cases make a bootstrap interval much too narrow; none is computed."""


class Difference(FrozenModel):
    """Difference of two mean scores, and its confidence interval.

    Attributes:
        mean: The difference, in the unit of the metric.
        low: Lower end of the interval; None if there are too few cases.
        high: Upper end of the interval; None if there are too few cases.
    """

    mean: float
    low: float | None
    high: float | None


def mean_score(scores: ScoreArray) -> ScoreArray:
    """Returns the mean over cases, then over structures, then over seeds, as `fseft evaluate` does.

    Args:
        scores: Shape (seeds, ..., cases, structures); NaN where a structure has no score.

    Returns:
        Shape (...).
    """
    with warnings.catch_warnings():
        # A structure without a score in any case has a mean of NaN.
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        over_cases = np.nanmean(scores, axis=-2)
        mean: ScoreArray = np.nanmean(np.nanmean(over_cases, axis=-1), axis=0)
    return mean


def paired_difference(scores: ScoreArray, baseline: ScoreArray) -> Difference | None:
    """Compares two methods by their `mean_score`, with a BCa bootstrap interval over the cases.

    Both methods are resampled with the same cases (Efron, JASA 82, 1987).

    Args:
        scores: Shape (seeds, cases, structures); NaN where a structure has no score.
        baseline: Scores of the method to compare with, on the same cases and structures; the
            number of seeds may differ.

    Returns:
        The mean of `scores` minus that of `baseline`; None if either has no score.
    """

    def difference(cases: NDArray[np.integer[Any]], axis: int = -1) -> ScoreArray:
        del axis  # scipy passes it if the function is vectorised: always the last
        return mean_score(scores[:, cases]) - mean_score(baseline[:, cases])

    cases = np.arange(scores.shape[1])
    mean = float(difference(cases))
    if np.isnan(mean):
        return None
    if len(cases) < MIN_CASES:
        return Difference(mean=mean, low=None, high=None)
    low, high = _bootstrap_interval(cases, difference)
    if np.isnan(low) or np.isnan(high):  # all resamples have the same difference
        low = high = mean
    return Difference(mean=mean, low=low, high=high)


def _bootstrap_interval(cases: NDArray[np.integer[Any]], statistic: Any) -> tuple[float, float]:
    from scipy.stats import DegenerateDataWarning, bootstrap

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        interval = bootstrap(
            (cases,),
            statistic,
            vectorized=True,
            n_resamples=4999,
            batch=500,
            confidence_level=CONFIDENCE_LEVEL,
            random_state=np.random.default_rng(0),
        ).confidence_interval
    return float(interval.low), float(interval.high)
