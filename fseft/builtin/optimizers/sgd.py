"""The optimizer `sgd`: stochastic gradient descent with Nesterov momentum, as nnU-Net uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fseft.plugin import OptimizerSpec

if TYPE_CHECKING:
    from torch.optim import Optimizer

MOMENTUM = 0.99


def sgd(parameter_groups: list[dict[str, Any]], weight_decay: float) -> Optimizer:
    """Returns SGD with Nesterov momentum."""
    from torch.optim import SGD

    return SGD(parameter_groups, momentum=MOMENTUM, nesterov=True, weight_decay=weight_decay)


SPEC = OptimizerSpec(
    name="sgd",
    factory="fseft.builtin.optimizers.sgd:sgd",
    summary="stochastic gradient descent with a Nesterov momentum of 0.99",
    reference="Isensee et al. 2021, Nature Methods 18:203",
    learning_rate_factor=10.0,
)
