"""How weights lie in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import torch

if TYPE_CHECKING:
    from torch import nn

N = TypeVar("N", bound="nn.Module")


def on_device(network: N, device: str) -> N:
    """Move a network to a device; on a CPU, its 3D convolutions then work with channels last.

    They take the layout from their weights. Training a residual U-Net is 1.4 times as fast, predicting with it 1.2
    times (`benchmarks/channels_last.py`). The values are the same but for the order of sums.
    """
    network.to(device)
    if torch.device(device).type == "cpu":
        with torch.inference_mode(False):  # else weights could not be trained any more
            for parameter in network.parameters():
                if parameter.dim() == 5:
                    parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
    return network
