"""The state of training after an epoch or a step, as callbacks and methods receive it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Epoch:
    """Summary of an epoch, or of the part of it that has been trained so far.

    Attributes:
        number: Number of the epoch, from 1.
        loss: Mean training loss over its steps.
        learning_rate: Learning rate of the first parameter group.
        seconds: Training time since the start of the run, in seconds.
        progress: Fraction of the schedule that has passed, 0 to 1.
    """

    number: int
    loss: float
    learning_rate: float
    seconds: float
    progress: float
