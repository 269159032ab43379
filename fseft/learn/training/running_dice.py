"""The Dice of each structure on the crops of the last training steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable

INTERVAL = 4
"""Steps from one update to the next, so that the score costs less than 1 % of a training."""
_DECAY = 0.8  # of the counts so far, at each update
_STRIDE = 2


class RunningDice:
    """Dice from voxel counts of which those of earlier steps fade, as the pseudo Dice of nnU-Net.

    Every second voxel along each axis is counted.

    Args:
        structures: Names of the structures, whose labels are 1, 2, ...

    Examples:
        >>> dice = RunningDice(["liver", "spleen"])
        >>> labels = torch.ones(1, 4, 4, 4, dtype=torch.long)
        >>> dice.update(torch.nn.functional.one_hot(labels, 3).movedim(-1, 1), labels)
        >>> dice.scores()
        {'liver': 1.0}
    """

    def __init__(self, structures: Iterable[str]) -> None:
        self.structures = tuple(structures)
        self.counts = torch.zeros(3, len(self.structures), dtype=torch.float64)

    @torch.no_grad()
    def update(
        self, logits: torch.Tensor, labels: torch.Tensor, annotated: torch.Tensor | None = None
    ) -> None:
        """Adds the crops of a step.

        Args:
            logits: (B, 1 + structures, i, j, k), the background first.
            labels: (B, i, j, k); other values are not counted.
            annotated: (B, structures), 0 where a crop does not count for a structure, as its case
                does not annotate it; None if all do.
        """
        predicted = _thinned(logits).max(1).indices  # faster than argmax
        reference = _thinned(labels)
        crops, length = len(labels), 1 + len(self.structures)
        is_class = (reference >= 0) & (reference < length)
        first = torch.arange(0, crops * length, length, device=labels.device)
        numbers = first.view(-1, 1, 1, 1)  # so that each crop has its own bins
        is_hit = is_class & (predicted == reference)
        counted = [
            torch.bincount((values + numbers)[chosen], minlength=crops * length)
            for values, chosen in (
                (predicted, is_hit),
                (predicted, is_class),
                (reference, is_class),
            )
        ]
        counts = torch.stack(counted).view(3, crops, length)[..., 1:]
        if annotated is not None:
            counts = counts * annotated
        self.counts = _DECAY * self.counts + counts.sum(1).cpu()

    def scores(self) -> dict[str, float]:
        """Returns structure -> Dice, for the structures that have occurred."""
        overlap, predicted, reference = self.counts.tolist()
        scores = {}
        for index, name in enumerate(self.structures):
            if reference[index]:
                size = predicted[index] + reference[index]
                scores[name] = round(2 * overlap[index] / size, 4)
        return scores


def _thinned(volumes: torch.Tensor) -> torch.Tensor:
    return volumes[..., ::_STRIDE, ::_STRIDE, ::_STRIDE]
