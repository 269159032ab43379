"""Architecture `stunet`: STU-Net, a residual U-Net that scales in width and depth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.learn.networks.base_architecture import (
    BaseArchitecture,
    level_of,
    limits_by_strides,
    module_count,
)
from fseft_nnunet.configs import STUNetConfig

if TYPE_CHECKING:
    from torch import nn

    from fseft.learn.networks.roles import PartName, PatchLimits
    from fseft.schemas import Triple


class STUNet(BaseArchitecture):
    """Architecture `stunet`; state dicts have the public names, with one head."""

    config_class = STUNetConfig
    divisor: Triple = (32, 32, 32)
    minimum_patch: Triple = (64, 64, 64)
    head_pattern = r"seg_outputs\.\d+"
    before_norm_pattern = r".*\.conv[12]"

    def build(self, *, in_channels: int, out_channels: int, config: STUNetConfig) -> nn.Module:
        """Builds a network (B, in, i, j, k) -> logits (B, out, i, j, k)."""
        from fseft_nnunet.stunet_network import STUNetNetwork

        width, blocks = config.width, config.blocks
        return STUNetNetwork(in_channels, out_channels, width, blocks, config.strides)

    def patch_limits(self, config: STUNetConfig) -> PatchLimits:
        """Returns limits by the strides; the instance norm of the coarsest level needs voxels."""
        return limits_by_strides(config.strides)

    def part_and_stage(self, network: nn.Module, name: str) -> tuple[PartName, int]:
        """Counts `context` levels from the finest, all others from the coarsest."""
        deepest = module_count(network, "upsample_layers")
        if not name.startswith("conv_blocks_context."):
            return "decoder", deepest - 1 - level_of(name)
        stage = level_of(name)
        return ("bottleneck" if stage == deepest else "encoder"), stage
