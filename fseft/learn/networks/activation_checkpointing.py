"""The blocks of a network: parts that can be sharded, or computed again instead of kept, each as a whole."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from torch import nn

    from fseft.learn.networks.roles import Architecture


def checkpointable_blocks(architecture: Architecture, network: nn.Module) -> list[nn.Module]:
    """Transformer blocks, and what holds a spatial convolution with its norm and activation; none lies in another."""
    targets = architecture.targets(network)
    named = {target.name for target in targets if target.role == "block"}
    holders = {
        target.name.rpartition(".")[0] for target in targets if target.role == "conv.spatial"
    } - {""}
    holders = {name for name in holders if not _inside(name, named | holders)[1]}
    chosen = named | {name for name in holders if not _inside(name, named)[0]}
    return [module for name, module in network.named_modules() if name in chosen]


def _inside(name: str, others: set[str]) -> tuple[bool, bool]:
    """Whether it lies in one of the others, and whether one of them lies in it."""
    return (
        any(f"{name}.".startswith(f"{other}.") for other in others),
        any(other.startswith(f"{name}.") for other in others),
    )


def checkpoint_activations(modules: list[nn.Module]) -> None:
    """Keep only the inputs of these modules, and compute the rest again in the backward pass (Chen et al. 2016)."""
    for module in modules:
        module.forward = partial(checkpoint, module.forward, use_reentrant=False)
