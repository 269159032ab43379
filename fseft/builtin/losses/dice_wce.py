"""The loss `dice_wce`: soft Dice of the structures, with a share of weighted cross-entropy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.plugin import LossSpec

if TYPE_CHECKING:
    from torch import Tensor

    from fseft.learn.training.losses import Predictions


def dice_wce_loss(predictions: Predictions) -> Tensor:
    """Returns a sum of 1 - soft Dice and class-weighted cross-entropy, (G, S).

    Both have the weight 1 at first. The cross-entropy, which finds small structures early and
    predicts them too large, decreases linearly to 0 in favour of Dice, which corrects their size
    and alone would lose them or fill the image with them.
    """
    progress = predictions.progress
    dice = 1 - predictions.dice()
    return (1 + progress) * dice + (1 - progress) * predictions.weighted_cross_entropy()


SPEC = LossSpec(
    name="dice_wce",
    factory="fseft.builtin.losses.dice_wce:dice_wce_loss",
    summary="from Dice plus cross-entropy, weighted by 1 / sqrt(class frequency), to Dice alone",
)
