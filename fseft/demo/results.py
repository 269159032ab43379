"""Options and results of the demonstration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fseft.metrics.scores import mean

if TYPE_CHECKING:
    from pathlib import Path

    from fseft.inference.adapter import Adapter
    from fseft.metrics.scores import Scores
    from fseft.schemas import Run

KNOWN = ("liver", "kidney_left", "vertebrae")
"""Structures that the embedded model was pre-trained on."""


@dataclass(frozen=True)
class DemoRequest:
    """Options of the demonstration.

    Attributes:
        folder: Folder for all results.
        k: Number of labelled phantoms.
        test_cases: Number of unseen phantoms.
        shift: Domain shift from 0 to 1.
        epochs: Epochs of k steps for each method that trains the network; methods that train on
            cached features take the default number, as their steps cost little.
        minutes: Time budget of each training instead of `epochs`.
        seed: Random seed.
    """

    folder: Path
    k: int = 5
    test_cases: int = 4
    shift: float = 0.5
    epochs: int = 70
    minutes: float | None = None
    seed: int = 0

    @property
    def data(self) -> Path:
        """Folder of the dataset."""
        return self.folder / "data" / f"phantom-torso-{self.seed}"

    def predictions(self, method: str) -> Path:
        """Returns the folder of the predictions of a method."""
        return self.folder / "predictions" / method


@dataclass(frozen=True)
class MethodResult:
    """Result of one method.

    Attributes:
        method: Name of the method.
        adapter: The trained adapter, with the document of its run.
        scores: Scores of the unseen phantoms.
    """

    method: str
    adapter: Adapter
    scores: Scores

    @property
    def run(self) -> Run:
        """The document of the run."""
        run = self.adapter.run
        assert run is not None  # noqa: S101 - the run has just ended
        return run

    @property
    def adapter_mb(self) -> float:
        """Size of the adapter file in MB."""
        return self.adapter.path.stat().st_size / 1e6

    def dice(self, structure: str) -> float | None:
        """Returns the mean Dice of a structure; None if the method cannot segment it."""
        summary = self.scores.classes.get(structure)
        return summary.mean["dice"] if summary else None

    def dice_sd(self, structure: str) -> float | None:
        """Returns the standard deviation of the Dice of a structure; None as for `dice`."""
        summary = self.scores.classes.get(structure)
        return summary.std["dice"] if summary else None

    def mean_dice(self, structures: tuple[str, ...]) -> float | None:
        """Returns the mean Dice over structures; None if none was scored."""
        return mean(self.dice(structure) for structure in structures)


@dataclass(frozen=True)
class DemoResult:
    """Results of all methods, and the page that shows them.

    Attributes:
        results: One per method, in the order in which they are shown.
        page: Path of `index.html`.
    """

    results: tuple[MethodResult, ...]
    page: Path
