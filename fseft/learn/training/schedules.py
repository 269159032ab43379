"""When to stop and how fast to learn: pure functions of what happened so far."""

from __future__ import annotations

from math import cos, pi
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def learning_rate_factor(progress: float, warm_up: float) -> float:
    """Linear warm-up, then half a cosine down to zero.

    Args:
        progress: Share of the schedule that is done, 0 to 1.
        warm_up: Share of the schedule that warms up.
    """
    if progress < warm_up:
        return max(progress / warm_up, 0.01)
    return 0.5 * (1 + cos(pi * min(1.0, (progress - warm_up) / max(1 - warm_up, 1e-9))))


def on_plateau(
    losses: Sequence[float], *, window: int = 10, patience: int = 20, least: float = 0.001
) -> bool:
    """Whether the moving average of the training loss has stopped improving.

    The rule of the FSEFT paper for want of a validation set: the `window`-epoch average improved by less than
    `least` over the last `patience` epochs.
    """
    if len(losses) < window + patience:
        return False
    now = sum(losses[-window:]) / window
    before = sum(losses[-window - patience : -patience]) / window
    return before - now < least


def too_short(losses: Sequence[float], *, fewest: int = 20, falling: float = 0.1) -> bool:
    """Whether a training ended long before it could have: too few epochs to judge, or a loss that still falls.

    A fall counts that takes more than the share `falling` from the third quarter of the epochs to the last.
    """
    if not losses:
        return False
    quarter = len(losses) // 4
    if len(losses) < fewest:
        return True
    before, now = sum(losses[-2 * quarter : -quarter]), sum(losses[-quarter:])
    return now < (1 - falling) * before
