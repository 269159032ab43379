"""The state of training after an epoch or a step, as callbacks and methods receive it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Epoch:
    """Summary of an epoch, or of the part of it that has been trained so far.

    Attributes:
        number: Number of the epoch, from 1.
        loss: Mean training loss over its steps.
        learning_rate: Learning rate of the first parameter group.
        seconds: Training time since the start of the run, in seconds.
        progress: Fraction of the schedule that has passed, 0 to 1.
        dice: Structure -> Dice on the augmented crops of the last steps, for structures that have
            occurred in them; empty for trainings on cached features.
        stage: Name of the training, such as "fold 2 of 5", if it is a part of a longer call.
    """

    number: int
    loss: float
    learning_rate: float
    seconds: float
    progress: float
    dice: Mapping[str, float] = field(default_factory=dict)
    stage: str = ""
