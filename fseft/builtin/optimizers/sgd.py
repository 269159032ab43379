"""The optimizer `sgd`: stochastic gradient descent with Nesterov momentum, as nnU-Net uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from fseft.plugin import Config, OptimizerSpec

if TYPE_CHECKING:
    from torch.optim import Optimizer


class SGDConfig(Config):
    """Settings of the optimizer."""

    momentum: float = Field(default=0.99, gt=0, lt=1, description="Nesterov momentum")


def sgd(
    parameter_groups: list[dict[str, Any]], weight_decay: float, *, momentum: float = 0.99
) -> Optimizer:
    """Returns SGD with Nesterov momentum.

    Args:
        parameter_groups: Parameters, each group with its learning rate `lr`.
        weight_decay: Weight decay, added to the gradient.
        momentum: Nesterov momentum.
    """
    from torch.optim import SGD

    return SGD(parameter_groups, momentum=momentum, nesterov=True, weight_decay=weight_decay)


SPEC = OptimizerSpec(
    name="sgd",
    factory="fseft.builtin.optimizers.sgd:sgd",
    summary="stochastic gradient descent with Nesterov momentum",
    config=SGDConfig,
    reference="Isensee et al. 2021, Nature Methods 18:203",
    learning_rate_factor=10.0,
)
