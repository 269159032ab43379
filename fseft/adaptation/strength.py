"""Chooses how much of the trained changes an adapter keeps, so that it does no harm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from fseft.adaptation.outcome import training_dice
from fseft.schemas import Strength

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from fseft.adaptation.request import AdaptConfig
    from fseft.learn.adapters.adapted_network import AdaptedNetwork
    from fseft.volume.cache import CachedCase

STRENGTHS = (0.25, 0.5, 0.75)
"""Fractions that are tried if the whole change is worse than none."""


def choose_strength(
    config: AdaptConfig,
    adapted: AdaptedNetwork,
    cached: Sequence[CachedCase],
    initial: Mapping[str, Tensor],
) -> Strength:
    """Scales the trained changes by the fraction that scores best on the training cases.

    Weights are interpolated between those before and after training (Wortsman et al. 2022,
    arXiv:2109.01903). Fractions between 0 and 1 are tried only if training made the model worse.

    Args:
        config: The resolved configuration.
        adapted: The trained network; its tensors are changed in place.
        cached: The preprocessed training cases.
        initial: `adapted.state_dict()` before the training.

    Returns:
        The fraction, and the scores of all fractions that were tried.
    """
    trained = adapted.state_dict()
    dice: dict[float, float] = {}

    def score(strength: float) -> None:
        adapted.load_state_dict(interpolate(initial, trained, strength))
        scores = training_dice(config, adapted, cached)
        dice[strength] = sum(scores.values()) / len(scores) if scores else 0.0

    score(0.0)
    score(1.0)
    if dice[1.0] < dice[0.0]:
        for strength in STRENGTHS:
            score(strength)
    best = max(dice, key=lambda strength: (dice[strength], strength))
    adapted.load_state_dict(interpolate(initial, trained, best))
    return Strength(
        value=best, dice={f"{strength:g}": round(dice[strength], 4) for strength in sorted(dice)}
    )


def interpolate(
    initial: Mapping[str, Tensor], trained: Mapping[str, Tensor], strength: float
) -> dict[str, Tensor]:
    """Returns tensors between those before training (0) and after it (1); integers of after it.

    Examples:
        >>> a, b = {"x": torch.zeros(1)}, {"x": torch.ones(1)}
        >>> interpolate(a, b, 0.25)["x"].item()
        0.25
    """
    return {
        name: torch.lerp(initial[name].to(tensor.dtype), tensor, strength)
        if tensor.is_floating_point() and name in initial
        else tensor
        for name, tensor in trained.items()
    }
