"""Measures what a network costs, on the smallest patch that it accepts."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from fseft.learn.networks import backbone
from fseft.learn.training.network_cost import NetworkCost

if TYPE_CHECKING:
    from collections.abc import Mapping


def measure_cost(name: str, hparams: Mapping[str, Any], in_channels: int) -> NetworkCost:
    """Builds a network with one output channel, and counts on the smallest patch.

    The network runs on the meta device, without memory and arithmetic: what a real run allocates
    would stay with the process, in addition to what the training needs.

    Args:
        name: Name of the architecture.
        hparams: Its hyper-parameters.
        in_channels: Channels of the image.
    """
    architecture = backbone.get_architecture(name)
    network = backbone.build_network(
        architecture, in_channels=in_channels, out_channels=1, hparams=hparams, seed=0
    )
    parameters = backbone.count_parameters(network)
    smallest = backbone.patch_limits(architecture, hparams).minimum
    patch = torch.zeros(1, in_channels, *smallest, device="meta")
    try:
        saved_bytes, flops = _count(network.to("meta"), patch)
    except (NotImplementedError, RuntimeError):  # a network whose code depends on values
        network = backbone.build_network(
            architecture, in_channels=in_channels, out_channels=1, hparams=hparams, seed=0
        )
        saved_bytes, flops = _count(network, torch.zeros(1, in_channels, *smallest))
    voxels = prod(smallest)
    return NetworkCost(
        activation_bytes=saved_bytes / voxels, parameters=parameters, flops=flops / voxels
    )


def _count(network: torch.nn.Module, patch: torch.Tensor) -> tuple[int, float]:
    """Returns the bytes that a forward pass saves for the backward pass, and its operations."""
    saved: dict[int, int] = {}

    def record(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        saved[storage._cdata] = storage.nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor)
    with FlopCounterMode(display=False) as counter, hooks:
        output = network(patch)
    for parameter in network.parameters():
        saved.pop(parameter.untyped_storage()._cdata, None)
    del output  # only now: it keeps the saved tensors, and so their storages, in use
    return sum(saved.values()), counter.get_total_flops()
