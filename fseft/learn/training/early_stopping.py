"""Rules on the course of the training loss: when to stop, and whether it was too early."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def has_plateaued(
    losses: Sequence[float], *, window: int = 10, patience: int = 20, min_delta: float = 0.001
) -> bool:
    """Returns whether the moving average of the training loss no longer improves.

    The rule of the FSEFT paper, which has no validation set.

    Args:
        losses: Mean training loss of each epoch.
        window: Epochs of the moving average.
        patience: Epochs over which the average must improve.
        min_delta: Minimum improvement.

    Examples:
        >>> has_plateaued([0.5] * 30), has_plateaued([1 - 0.01 * epoch for epoch in range(30)])
        (True, False)
    """
    if len(losses) < window + patience:
        return False
    recent = sum(losses[-window:]) / window
    earlier = sum(losses[-window - patience : -patience]) / window
    return earlier - recent < min_delta


def is_undertrained(
    losses: Sequence[float], *, min_epochs: int = 20, max_decrease: float = 0.1
) -> bool:
    """Returns whether a training ended too early: after few epochs, or with a decreasing loss.

    Args:
        losses: Mean training loss of each epoch.
        min_epochs: Epochs below which a training is too short in any case.
        max_decrease: Relative decrease from the third to the last quarter of the epochs that
            still counts as converged.
    """
    if not losses:
        return False
    if len(losses) < min_epochs:
        return True
    quarter = len(losses) // 4
    earlier = sum(losses[-2 * quarter : -quarter])
    return sum(losses[-quarter:]) < (1 - max_decrease) * earlier
