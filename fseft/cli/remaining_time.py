"""The remaining time of a job, estimated from the pace of its latter half so far."""

from __future__ import annotations

import math
from collections import deque

SHORTEST_MEASUREMENT = 3.0
"""Seconds of progress before there is an estimate: the first steps of a job are slower."""


class RemainingTime:
    """Estimates how long a job takes, again after each of its steps.

    A machine that becomes busy, or free, changes the estimate without making it jump.
    """

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque()
        self._started = 0.0

    def update(self, seconds: float, fraction: float) -> float:
        """Records the progress of the job, and returns the seconds that are left.

        Args:
            seconds: Time since any fixed moment; a lower value than before starts another job.
            fraction: Fraction of the job that is finished, 0 to 1.

        Returns:
            Seconds; infinite while the progress is too short to be extrapolated.

        Examples:
            >>> job = RemainingTime()
            >>> job.update(0, 0), job.update(10, 0.25)
            (inf, 30.0)
        """
        if self._samples and seconds < self._samples[-1][0]:  # another training, of the next seed
            self._samples.clear()
        if not self._samples:
            self._started = seconds
        self._samples.append((seconds, fraction))
        half = (self._started + seconds) / 2
        while len(self._samples) > 1 and self._samples[1][0] <= half:
            self._samples.popleft()
        first_seconds, first_fraction = self._samples[0]
        advanced = fraction - first_fraction
        if advanced <= 0 or seconds - self._started < SHORTEST_MEASUREMENT:
            return math.inf
        return max(0.0, (seconds - first_seconds) / advanced * (1 - fraction))
