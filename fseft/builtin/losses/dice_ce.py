"""The loss `dice_ce`: soft Dice of the structures plus cross-entropy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from fseft.plugin import Config, LossSpec

if TYPE_CHECKING:
    from torch import Tensor

    from fseft.learn.training.losses import Predictions


class DiceCEConfig(Config):
    """Settings of the loss."""

    ce_weight: float = Field(default=1.0, ge=0, description="factor of the cross-entropy")


def dice_ce_loss(predictions: Predictions, *, ce_weight: float = 1.0) -> Tensor:
    """Returns 1 - soft Dice of each structure, plus the cross-entropy times its weight.

    Exclusive classes share the cross-entropy of the softmax; independent structures have a binary
    cross-entropy each.

    Args:
        predictions: Logits and reference.
        ce_weight: Weight of the cross-entropy relative to the Dice term.

    Returns:
        (G, S), one value for each group and structure.
    """
    return 1 - predictions.dice() + ce_weight * predictions.cross_entropy()


SPEC = LossSpec(
    name="dice_ce",
    factory="fseft.builtin.losses.dice_ce:dice_ce_loss",
    summary="soft Dice plus cross-entropy",
    config=DiceCEConfig,
    reference="Isensee et al. 2021, Nature Methods 18:203",
)
