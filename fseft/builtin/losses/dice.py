"""The loss `dice`: soft Dice of the structures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.plugin import LossSpec

if TYPE_CHECKING:
    from torch import Tensor

    from fseft.learn.training.losses import Predictions


def dice_loss(predictions: Predictions) -> Tensor:
    """Returns 1 - soft Dice of each structure, (G, S); the background is left out."""
    return 1 - predictions.dice()


SPEC = LossSpec(
    name="dice",
    factory="fseft.builtin.losses.dice:dice_loss",
    summary="soft Dice of the structures, without the background",
    reference="Milletari et al. 2016, arXiv:1606.04797",
)
