"""How far the scores of two methods lie apart, and how sure that is."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from fseft.schemas import FrozenModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Scores = NDArray[np.floating[Any]]

LEVEL = 0.95
FEWEST = 6
"""Cases below which a bootstrap draws from so few values that intervals are much too narrow."""


class Difference(FrozenModel):
    """A mean score less another, and the interval that holds it for `LEVEL` of samples of cases."""

    mean: float
    low: float | None
    high: float | None


def mean_score(scores: Scores) -> Scores:
    """Mean over cases, then structures, then seeds, as `summarise` and a mean over seeds have it.

    Args:
        scores: (seeds, ..., cases, structures), NaN where a structure has no score.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "Mean of empty slice", RuntimeWarning
        )  # of a structure in no case
        found: Scores = np.nanmean(np.nanmean(np.nanmean(scores, axis=-2), axis=-1), axis=0)
    return found


def paired_difference(scores: Scores, others: Scores) -> Difference | None:
    """`mean_score` of both, and a BCa bootstrap interval over the cases, the same for both (Efron, JASA 82, 1987).

    Args:
        scores: (seeds, cases, structures), NaN where a structure has no score.
        others: Of another method; the same cases and structures.

    Returns:
        None where one of them has no score at all.
    """
    from scipy.stats import DegenerateDataWarning, bootstrap

    def difference(cases: NDArray[np.integer[Any]], axis: int = -1) -> Scores:
        del axis  # the last, where it is told
        return mean_score(scores[:, cases]) - mean_score(others[:, cases])

    everything = np.arange(scores.shape[1])
    mean = float(difference(everything))
    if np.isnan(mean):
        return None
    if len(everything) < FEWEST:
        return Difference(mean=mean, low=None, high=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        found = bootstrap(
            (everything,),
            difference,
            vectorized=True,
            n_resamples=4999,
            batch=500,
            confidence_level=LEVEL,
            random_state=np.random.default_rng(0),
        ).confidence_interval
    low, high = float(found.low), float(found.high)
    if np.isnan(low) or np.isnan(high):  # the same in all samples
        low = high = mean
    return Difference(mean=mean, low=low, high=high)
