"""Schema of a cross-validation within the training cases of an adapter."""

from __future__ import annotations

from pydantic import Field

from fseft.schemas.base import FrozenModel


class ExpectedDice(FrozenModel):
    """Dice of a structure, or of all, in cases that an adapter was not trained on.

    Attributes:
        mean: Mean over the cases.
        low: Lower end of the 95 % interval of the mean.
        high: Upper end of the interval.
        cases: Number of cases.
    """

    mean: float
    low: float
    high: float
    cases: int


class CrossValidation(FrozenModel):
    """Dice by cross-validation within the training cases.

    Attributes:
        folds: The cases of each fold; each is scored by an adapter of all other cases.
        dice: Case -> structure -> Dice on the grid of the scan.
        expected: Structure -> Dice in cases like these.
        mean: The mean over the structures.
    """

    folds: tuple[tuple[str, ...], ...]
    dice: dict[str, dict[str, float]] = Field(description="without structures that a case lacks")
    expected: dict[str, ExpectedDice]
    mean: ExpectedDice
