"""How far two sets of scores lie apart, and how sure that is."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING

from fseft.documents import Part

if TYPE_CHECKING:
    from collections.abc import Mapping

LEVEL = 0.95
FEWEST = 3
"""Cases below which an interval would mean nothing."""


class Difference(Part):
    """Mean over cases of one score less another, and the interval that holds it in `LEVEL` of samples of cases."""

    mean: float
    low: float | None
    high: float | None
    cases: int


def paired_difference(scores: Mapping[str, float], others: Mapping[str, float]) -> Difference:
    """Scores less others, case by case, with a BCa bootstrap interval over cases (Efron, JASA 82, 1987).

    Args:
        scores: By case.
        others: By case; cases that only one side has do not count.
    """
    import numpy as np
    from scipy.stats import bootstrap

    differences = [score - others[case] for case, score in scores.items() if case in others]
    mean = fmean(differences)
    if len(differences) < FEWEST:
        return Difference(mean=mean, low=None, high=None, cases=len(differences))
    if min(differences) == max(differences):  # nothing to resample
        return Difference(mean=mean, low=mean, high=mean, cases=len(differences))
    random = np.random.default_rng(0)
    found = bootstrap((differences,), np.mean, confidence_level=LEVEL, random_state=random).confidence_interval
    return Difference(mean=mean, low=float(found.low), high=float(found.high), cases=len(differences))
