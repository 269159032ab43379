"""Chooses how much of the trained changes an adapter keeps, so that it does no harm.

Half of the strength halves the change of every merged weight, exactly, for all methods that merge
but DoRA, PiSSA and Compacter from a random start, whose tensors are interpolated one by one; and it
halves what a branch adds. The convolutions and the classifier of `spatial-adapter` are
interpolated one by one as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from fseft.adaptation.outcome import largest_weight, training_dice
from fseft.schemas import Strength

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

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

    Raises:
        FseftError: A trained tensor is not finite.
    """
    largest_weight(adapted)
    trained, kept = adapted.state_dict(), adapted.kept_factors()
    dice: dict[float, float] = {}

    def score(strength: float) -> None:
        adapted.load_state_dict(interpolate(initial, trained, strength, kept))
        scores = training_dice(config, adapted, cached)
        dice[strength] = sum(scores.values()) / len(scores) if scores else 0.0

    score(0.0)
    score(1.0)
    if dice[1.0] < dice[0.0]:
        for strength in STRENGTHS:
            score(strength)
    best = max(dice, key=lambda strength: (dice[strength], strength))
    adapted.load_state_dict(interpolate(initial, trained, best, kept))
    return Strength(
        value=best, dice={f"{strength:g}": round(dice[strength], 4) for strength in sorted(dice)}
    )


def interpolate(
    initial: Mapping[str, Tensor],
    trained: Mapping[str, Tensor],
    strength: float,
    kept: Collection[str] = (),
) -> dict[str, Tensor]:
    """Returns tensors between those before training (0) and after it (1); integers of after it.

    Args:
        initial: The tensors before training.
        trained: The tensors after it.
        strength: The fraction of the change.
        kept: Names of tensors that are as after training unless the strength is 0, see
            `AdaptedNetwork.kept_factors`.

    Examples:
        >>> a, b = {"x": torch.zeros(1)}, {"x": torch.ones(1)}
        >>> interpolate(a, b, 0.25)["x"].item()
        0.25
    """
    kept = kept if strength else ()
    return {
        name: torch.lerp(initial[name].to(tensor.dtype), tensor, strength)
        if tensor.is_floating_point() and name in initial and name not in kept
        else tensor
        for name, tensor in trained.items()
    }
