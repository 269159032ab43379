"""The optimizer `adamw`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fseft.plugin import OptimizerSpec

if TYPE_CHECKING:
    from torch.optim import Optimizer


def adamw(parameter_groups: list[dict[str, Any]], weight_decay: float) -> Optimizer:
    """Returns AdamW with PyTorch's defaults for the moments.

    Args:
        parameter_groups: Parameters, each group with its learning rate `lr`.
        weight_decay: Weight decay, decoupled from the gradient.
    """
    from torch.optim import AdamW

    return AdamW(parameter_groups, weight_decay=weight_decay)


SPEC = OptimizerSpec(
    name="adamw",
    factory="fseft.builtin.optimizers.adamw:adamw",
    summary="Adam with decoupled weight decay",
    reference="Loshchilov and Hutter 2019, arXiv:1711.05101",
)
