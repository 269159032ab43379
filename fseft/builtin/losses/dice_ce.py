"""The loss `dice_ce`: soft Dice of the structures plus cross-entropy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.plugin import LossSpec

if TYPE_CHECKING:
    from torch import Tensor

    from fseft.learn.training.losses import Predictions


def dice_ce_loss(predictions: Predictions) -> Tensor:
    """Returns 1 - soft Dice of each structure, plus cross-entropy, (G, S).

    Exclusive classes share the cross-entropy of the softmax; independent structures have a binary
    cross-entropy each.
    """
    return 1 - predictions.dice() + predictions.cross_entropy()


SPEC = LossSpec(
    name="dice_ce",
    factory="fseft.builtin.losses.dice_ce:dice_ce_loss",
    summary="soft Dice plus cross-entropy",
    reference="Isensee et al. 2021, Nature Methods 18:203",
)
