"""Schemas of what an adapter is made of: the chosen method, several trainings, a former adapter."""

from __future__ import annotations

from fseft.schemas.base import Document, FrozenModel


class Candidate(FrozenModel):
    """A method that was tried on training cases which it was not trained on.

    Attributes:
        method: Name of the method.
        steps: Training steps, summed over the folds; 0 for a method that does not train.
        dice: Training case -> mean Dice of its structures, on crops.
        seconds: Duration.
        failure: Why the method could not be tried; empty if it could.
    """

    method: str
    steps: int = 0
    dice: dict[str, float] = {}
    seconds: float = 0.0
    failure: str = ""

    @property
    def mean(self) -> float:
        """The mean Dice over the cases; 0 without a case."""
        return sum(self.dice.values()) / len(self.dice) if self.dice else 0.0


class Selection(FrozenModel):
    """The choice of a method; absent where the user chose it.

    Attributes:
        key: Digest of all that the choice depends on.
        method: Name of the chosen method.
        reason: Why, in a few words.
        candidates: The methods that were tried, in the order in which they were tried.
        seconds: Duration of the trials, which is part of the time budget.
    """

    key: str
    method: str
    reason: str
    candidates: tuple[Candidate, ...] = ()
    seconds: float = 0.0


class MethodTrials(Document):
    """The trials of methods in the folder of a run, from which an interrupted choice resumes.

    Attributes:
        key: Digest of all that the trials depend on, also their length.
        results: Method and half of the cases -> result.
        selection: The choice; None before the last trial.
    """

    key: str
    results: dict[str, Candidate] = {}
    selection: Selection | None = None


class Strength(FrozenModel):
    """The fraction of the trained changes that an adapter keeps; absent where all were kept.

    Attributes:
        value: From 0, the model without training, to 1.
        dice: Fraction -> mean Dice on crops of the training cases.
    """

    value: float
    dice: dict[str, float]


class Soup(FrozenModel):
    """Several trainings with different seeds, of which one result was written.

    Attributes:
        chosen: "average" of their weights, or the number of the best training.
        dice: Mean Dice of each on crops of the training cases.
        members: sha256 of the adapter of each training.
    """

    chosen: str
    dice: dict[str, float]
    members: tuple[str, ...]


class Origin(FrozenModel):
    """The adapter from which a training started; absent where it started from the model.

    Attributes:
        sha256: Of the file of the adapter.
        dataset: Name of the dataset that it was trained on.
        k: Number of its training cases; None in earlier versions.
        cases: Names of its training cases.
        rows: Structure -> structure of that adapter whose row of the head it starts from.
        path: The adapter, as the user wrote it; empty in the manifest, which others may read.
        origin: The adapter from which the training of that adapter started, if any.
    """

    sha256: str
    dataset: str
    k: int | None = None
    cases: tuple[str, ...]
    rows: dict[str, str] = {}
    path: str = ""
    origin: Origin | None = None
