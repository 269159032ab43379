"""The U-Net of anatomix under the names of its public checkpoints, with a pointwise head."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


class AnatomixNetwork(nn.Module):
    """A U-Net whose layers are numbered in one list, as in the checkpoints of its owner.

    Dey et al. 2024, arXiv:2411.02372. Convolutions have reflection padding. A level of the decoder
    begins with the upsampling, after which the features of the encoder are joined in front.

    Args:
        in_channels: Channels of the image.
        out_channels: Classes of the head.
        width: Width at full resolution.
        features: Width of the head's input.
        levels: Number of downsampling steps.
        instance: The later variant: instance norm without weights, average pooling, and trilinear
            upsampling, instead of batch norm, maximum pooling, and nearest neighbours.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        width: int,
        features: int,
        levels: int,
        instance: bool,
    ) -> None:
        super().__init__()
        convolution = _convolutions(biased=instance)
        mode = "trilinear" if instance else "nearest"
        self.layers = nn.ModuleList()
        self.pools: list[int] = []
        self.upsamplings: list[int] = []

        def add(inputs: int, outputs: int) -> None:
            norm = nn.InstanceNorm3d(outputs, eps=1e-2) if instance else nn.BatchNorm3d(outputs)
            self.layers.extend((convolution(inputs, outputs), norm, nn.ReLU(inplace=True)))

        add(in_channels, width)
        current = width
        for level in range(levels):
            outputs = width * 2**level
            add(current, outputs)
            add(outputs, outputs)
            self.pools.append(len(self.layers))
            self.layers.append(nn.AvgPool3d(2) if instance else nn.MaxPool3d(2))
            current = outputs
        add(current, 2 * current)
        add(2 * current, 2 * current)
        current *= 2
        for level in reversed(range(levels)):
            self.upsamplings.append(len(self.layers))
            self.layers.append(nn.Upsample(scale_factor=2, mode=mode))
            outputs = width * 2**level
            add(current + outputs, outputs)
            add(outputs, outputs)
            current = outputs
        self.layers.append(convolution(current, features))
        self.head = nn.Conv3d(features, out_channels, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:
        """Maps images (B, C, i, j, k) to logits (B, classes, i, j, k)."""
        skipped: list[Tensor] = []
        features = image
        for number, layer in enumerate(self.layers):
            if number in self.pools:
                skipped.append(features)
            features = layer(features)
            if number in self.upsamplings:
                features = torch.cat((skipped.pop(), features), dim=1)
        logits: Tensor = self.head(features)
        return logits


def _convolutions(*, biased: bool) -> Callable[[int, int], nn.Conv3d]:
    def convolution(inputs: int, outputs: int) -> nn.Conv3d:
        return nn.Conv3d(inputs, outputs, 3, padding=1, padding_mode="reflect", bias=biased)

    return convolution
