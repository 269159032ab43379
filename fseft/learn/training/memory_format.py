"""How weights lie in memory."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

N = TypeVar("N", bound=nn.Module)


def to_device(network: N, device: str) -> N:
    """Move a network to a device; on a CPU, its 3D convolutions then work with channels last.

    They take the layout from their weights. A training step of the default network is 1.2 times as fast so, of a
    SegResNet 1.5 times; of other networks 0.9 to 1 times (`benchmarks/channels_last.py`). Transposed convolutions stay
    as they are. The values are the same but for the order of sums.
    """
    network.to(device)
    if torch.device(device).type == "cpu":
        convolutions = (module for module in network.modules() if isinstance(module, nn.Conv3d))
        with torch.inference_mode(False):  # else weights could not be trained any more
            for parameter in (
                one for module in convolutions for one in module.parameters() if one.dim() == 5
            ):
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
    return network
