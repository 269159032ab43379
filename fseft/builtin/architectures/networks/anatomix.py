"""The U-Net of anatomix under the names of its public checkpoints, with a pointwise head."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

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
        self.instance = instance
        self.layers = nn.ModuleList()
        self.pools: list[int] = []
        self.upsamplings: list[int] = []
        self._add_convolution(in_channels, width)
        widths = [width * 2**level for level in range(levels)]
        self._add_encoder(width, widths)
        self._add_level(widths[-1], 2 * widths[-1])
        self._add_decoder(widths)
        self.layers.append(self._convolution(width, features))
        self.head = nn.Conv3d(features, out_channels, kernel_size=1)

    def _add_encoder(self, width: int, widths: Sequence[int]) -> None:
        for outputs in widths:
            self._add_level(width, outputs)
            self.pools.append(len(self.layers))
            self.layers.append(nn.AvgPool3d(2) if self.instance else nn.MaxPool3d(2))
            width = outputs

    def _add_decoder(self, widths: Sequence[int]) -> None:
        mode = "trilinear" if self.instance else "nearest"
        for outputs in reversed(widths):
            self.upsamplings.append(len(self.layers))
            self.layers.append(nn.Upsample(scale_factor=2, mode=mode))
            self._add_level(3 * outputs, outputs)

    def _convolution(self, inputs: int, outputs: int) -> nn.Conv3d:
        bias = self.instance
        return nn.Conv3d(inputs, outputs, 3, padding=1, padding_mode="reflect", bias=bias)

    def _add_convolution(self, inputs: int, outputs: int) -> None:
        self.layers.append(self._convolution(inputs, outputs))
        if self.instance:
            self.layers.append(nn.InstanceNorm3d(outputs, eps=1e-2))
        else:
            self.layers.append(nn.BatchNorm3d(outputs))
        self.layers.append(nn.ReLU(inplace=True))

    def _add_level(self, inputs: int, outputs: int) -> None:
        self._add_convolution(inputs, outputs)
        self._add_convolution(outputs, outputs)

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
