"""STU-Net (Huang et al. 2023, arXiv:2304.06716), under the names of its public checkpoints."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from fseft.schemas import Triple

GROWTH = (1, 2, 4, 8, 16, 16)
"""Width of each level relative to the finest."""


class Block(nn.Module):
    """Residual block: two convolutions, and a pointwise shortcut in the first block of a level."""

    def __init__(self, inputs: int, outputs: int, stride: int | Triple, *, first: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(inputs, outputs, 3, stride, padding=1)
        self.norm1 = nn.InstanceNorm3d(outputs, affine=True)
        self.conv2 = nn.Conv3d(outputs, outputs, 3, padding=1)
        self.norm2 = nn.InstanceNorm3d(outputs, affine=True)
        self.conv3 = nn.Conv3d(inputs, outputs, 1, stride) if first else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, inputs, i, j, k) to (B, outputs, i, j, k), downsampled by the stride."""
        y = F.leaky_relu(self.norm1(self.conv1(x)))
        residual = self.norm2(self.conv2(y))
        return F.leaky_relu(residual + self.conv3(x))


class Upsample(nn.Module):
    """Nearest-neighbour upsampling and a pointwise convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, 1)

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        """Maps (B, inputs, ...) to (B, outputs, i, j, k), with the size of `like`."""
        larger: Tensor = self.conv(F.interpolate(x, size=like.shape[2:], mode="nearest"))
        return larger


class STUNetNetwork(nn.Module):
    """A U-Net with the same number of residual blocks on each level of encoder and decoder.

    Args:
        in_channels: Channels of the image.
        out_channels: Channels of the logits.
        width: Channels of the finest level.
        blocks: Residual blocks per level.
        strides: Stride into each level except the first.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        width: int,
        blocks: int,
        strides: Sequence[int | Triple],
    ) -> None:
        super().__init__()
        widths = [width * growth for growth in GROWTH]
        self.conv_blocks_context = nn.ModuleList()
        inputs = in_channels
        for outputs, stride in zip(widths, (1, *strides), strict=True):
            self.conv_blocks_context.append(_level(inputs, outputs, blocks, stride))
            inputs = outputs
        self.upsample_layers = nn.ModuleList()
        self.conv_blocks_localization = nn.ModuleList()
        self.seg_outputs = nn.ModuleList()
        coarse_to_fine = widths[::-1]
        for inputs, outputs in pairwise(coarse_to_fine):
            self.upsample_layers.append(Upsample(inputs, outputs))
            self.seg_outputs.append(nn.Identity())  # in place of a head of deep supervision
        for outputs in coarse_to_fine[1:]:
            self.conv_blocks_localization.append(_level(2 * outputs, outputs, blocks, 1))
        self.seg_outputs[-1] = nn.Conv3d(width, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images (B, in, i, j, k) to logits (B, out, i, j, k)."""
        skips = []
        for level in self.conv_blocks_context:
            x = level(x)
            skips.append(x)
        finer = skips[-2::-1]
        for upsample, level, skip in zip(
            self.upsample_layers, self.conv_blocks_localization, finer, strict=True
        ):
            x = level(torch.cat([upsample(x, skip), skip], dim=1))
        logits: Tensor = self.seg_outputs[-1](x)
        return logits


def _level(inputs: int, outputs: int, blocks: int, stride: int | Triple) -> nn.Sequential:
    """Builds the residual blocks of a level; the first changes width and resolution."""
    level = nn.Sequential(Block(inputs, outputs, stride, first=True))
    for _ in range(blocks - 1):
        level.append(Block(outputs, outputs, 1, first=False))
    return level
