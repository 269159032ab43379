"""The architecture `stunet`: STU-Net, a residual U-Net of one recipe in four sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.learn.networks.base_architecture import BaseArchitecture, depth, level, reduction

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from fseft.learn.networks.roles import PartName
    from fseft.schemas import Triple

STRIDES = (2, 2, 2, 2, (1, 1, 2))
"""Of the public models: their plans shrink the first two axes, foot-head and back-front, four times only."""


class STUNet(BaseArchitecture):
    """Architecture `stunet`; state dicts have the public names, without the heads of deep supervision."""

    divisor: Triple = (32, 32, 32)
    minimum_patch: Triple = (64, 64, 64)
    classifier = r"seg_outputs\.\d+"
    normed = r".*\.conv[12]"

    def build(
        self,
        *,
        in_channels: int,
        out_channels: int,
        width: int = 32,
        blocks: int = 1,
        strides: Sequence[int | Triple] = STRIDES,
    ) -> nn.Module:
        """A network (B, in, i, j, k) -> (B, out, i, j, k).

        Args:
            in_channels: Of the image.
            out_channels: Of the head.
            width: Of the finest level: 16, 32, 64 or 96 for S, B, L and H.
            blocks: Residual blocks of each level: 1, 1, 2 or 3 for S, B, L and H.
            strides: Into each level but the first.
        """
        from fseft_nnunet.stunet_network import STUNetNetwork

        self.refuse_deeper(reduction(strides))
        return STUNetNetwork(in_channels, out_channels, width, blocks, strides)

    def place(self, network: nn.Module, name: str) -> tuple[PartName, int]:
        """`context` counts from the finest level; what samples up and `localization` from the coarsest."""
        deepest = depth(network, "upsample_layers")
        if not name.startswith("conv_blocks_context."):
            return "decoder", deepest - 1 - level(name)
        return ("bottleneck", deepest) if level(name) == deepest else ("encoder", level(name))
