"""Activation checkpointing, and the blocks of a network that it and sharding work on."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from torch import nn

    from fseft.learn.networks.roles import Architecture


def checkpointable_blocks(architecture: Architecture, network: nn.Module) -> list[nn.Module]:
    """Returns the blocks of a network, which can be recomputed or sharded as a whole.

    Blocks are transformer blocks and the smallest modules that contain a spatial convolution with
    its norm and activation. They do not overlap.

    Args:
        architecture: Knows the roles of the layers.
        network: As returned by `architecture.build`.
    """
    targets = architecture.targets(network)
    blocks = {target.name for target in targets if target.role == "block"}
    convolutions = [target.name for target in targets if target.role == "conv.spatial"]
    parents = {name.rpartition(".")[0] for name in convolutions} - {""}
    candidates = parents | blocks
    smallest = {name for name in parents if not _contains_any(name, candidates)}
    outside = {name for name in smallest if not _is_inside_any(name, blocks)}
    selected = blocks | outside
    return [module for name, module in network.named_modules() if name in selected]


def _contains_any(name: str, others: set[str]) -> bool:
    """Returns whether a module contains one of the others."""
    return any(other.startswith(f"{name}.") for other in others)


def _is_inside_any(name: str, others: set[str]) -> bool:
    """Returns whether a module is one of the others, or is contained in one."""
    return any(f"{name}.".startswith(f"{other}.") for other in others)


def checkpoint_activations(modules: list[nn.Module]) -> None:
    """Recomputes the activations inside modules in the backward pass (Chen et al. 2016), in place.

    Only the inputs of the modules are kept in memory.
    """
    for module in modules:
        module.forward = partial(checkpoint, module.forward, use_reentrant=False)
