"""STU-Net (Huang et al. 2023, arXiv:2304.06716), under the names of its public checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from fseft.schemas import Triple

GROWTH = (1, 2, 4, 8, 16, 16)
"""Width of each level, in widths of the finest."""


class Block(nn.Module):
    """Two convolutions beside a shortcut, which is pointwise in the first block of a level."""

    def __init__(self, inputs: int, outputs: int, stride: int | Triple, *, first: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(inputs, outputs, 3, stride, padding=1)
        self.norm1 = nn.InstanceNorm3d(outputs, affine=True)
        self.conv2 = nn.Conv3d(outputs, outputs, 3, padding=1)
        self.norm2 = nn.InstanceNorm3d(outputs, affine=True)
        self.conv3 = nn.Conv3d(inputs, outputs, 1, stride) if first else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, i, j, k) -> (B, outputs, i, j, k), shrunk by the stride."""
        y = F.leaky_relu(self.norm1(self.conv1(x)))
        return F.leaky_relu(self.norm2(self.conv2(y)) + self.conv3(x))


class Upsample(nn.Module):
    """To the nearest voxel, then to another width."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, 1)

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        """(B, inputs, ...) -> (B, outputs, i, j, k), as large as `like`."""
        larger: Tensor = self.conv(F.interpolate(x, size=like.shape[2:], mode="nearest"))
        return larger


class STUNetNetwork(nn.Module):
    """A U-Net of residual blocks with as many of them in each level of both arms."""

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
        down = zip([in_channels, *widths[:-1]], widths, (1, *strides), strict=True)
        up = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.conv_blocks_context = nn.ModuleList(
            _level(i, o, blocks, stride) for i, o, stride in down
        )
        self.upsample_layers = nn.ModuleList(Upsample(i, o) for i, o in up)
        self.conv_blocks_localization = nn.ModuleList(_level(2 * o, o, blocks, 1) for _, o in up)
        self.seg_outputs = nn.ModuleList([nn.Identity() for _ in up[:-1]])
        self.seg_outputs.append(nn.Conv3d(width, out_channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, i, j, k) -> logits (B, out, i, j, k)."""
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
    more = (Block(outputs, outputs, 1, first=False) for _ in range(blocks - 1))
    return nn.Sequential(Block(inputs, outputs, stride, first=True), *more)
