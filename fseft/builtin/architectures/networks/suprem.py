"""The network of architecture `suprem-unet`, with four levels and the norm of its checkpoints."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SuPreMNetwork(nn.Module):
    """U-Net with concatenated skips: (B, in, i, j, k) -> logits (B, out, i, j, k).

    Attributes have the names of public checkpoints, which have a width of 64.

    Args:
        in_channels: Channels of the image.
        out_channels: Channels of the logits.
        width: Channels at full resolution.
    """

    def __init__(self, in_channels: int, out_channels: int, width: int) -> None:
        super().__init__()
        self.down_tr64 = Down(in_channels, width // 2, width)
        self.down_tr128 = Down(width, width, 2 * width)
        self.down_tr256 = Down(2 * width, 2 * width, 4 * width)
        self.down_tr512 = Down(4 * width, 4 * width, 8 * width)
        self.up_tr256 = Up(8 * width, 4 * width)
        self.up_tr128 = Up(4 * width, 2 * width)
        self.up_tr64 = Up(2 * width, width)
        self.head = nn.Conv3d(width, out_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images (B, in, i, j, k) to logits (B, out, i, j, k)."""
        full = self.down_tr64(x)
        half = self.down_tr128(F.max_pool3d(full, 2))
        quarter = self.down_tr256(F.max_pool3d(half, 2))
        x = self.down_tr512(F.max_pool3d(quarter, 2))
        x = self.up_tr64(self.up_tr128(self.up_tr256(x, quarter), half), full)
        logits: Tensor = self.head(x)
        return logits


class Down(nn.Module):
    """Two convolution units of an encoder level."""

    def __init__(self, in_channels: int, hidden: int, out_channels: int) -> None:
        super().__init__()
        self.ops = nn.Sequential(Unit(in_channels, hidden), Unit(hidden, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, in, i, j, k) to (B, out, i, j, k)."""
        y: Tensor = self.ops(x)
        return y


class Up(nn.Module):
    """Upsampling by 2, concatenation of the skip, which is as wide as the output, two units."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.up_conv = nn.ConvTranspose3d(in_channels, in_channels, kernel_size=2, stride=2)
        self.ops = nn.Sequential(
            Unit(in_channels + out_channels, out_channels), Unit(out_channels, out_channels)
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Maps (B, in, i, j, k) and a skip (B, out, 2i, 2j, 2k) to (B, out, 2i, 2j, 2k)."""
        y: Tensor = self.ops(torch.cat([self.up_conv(x), skip], dim=1))
        return y


class Unit(nn.Module):
    """Convolution, norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(in_channels, out_channels, kernel_size=3, padding=1)
        self.bn1 = VolumeNorm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, in, i, j, k) to (B, out, i, j, k)."""
        return torch.relu(self.bn1(self.conv1(x)))


class VolumeNorm(nn.InstanceNorm3d):
    """Instance norm with the tensors of a batch norm, whose running statistics it never uses.

    The original network normalises by the statistics of the batch, in evaluation too, so that the
    result of a volume depends on its neighbours. For a batch of one volume, which is how it is
    used, both norms are the same.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=True, track_running_stats=True)

    def forward(self, x: Tensor) -> Tensor:
        """Normalises each volume and channel of (B, C, i, j, k) separately."""
        return F.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)
