"""Architecture `mednext`: MONAI's MedNeXt, without the heads of deep supervision."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from fseft.lazy_imports import import_lazily
from fseft.learn.networks.base_architecture import BaseArchitecture, level_of, module_count
from fseft.plugin import ArchitectureSpec, Config

if TYPE_CHECKING:
    from torch import nn

    from fseft.learn.networks.roles import PartName, Role
    from fseft.schemas import Triple


class MedNeXtConfig(Config):
    """Hyper-parameters of `mednext`; the defaults are those of MedNeXt-S."""

    init_filters: int = Field(default=32, ge=1, description="width at full resolution")
    kernel_size: int = Field(
        default=3, ge=1, description="kernel size of the spatial convolutions; 3 or 5 in the paper"
    )
    blocks: tuple[int, ...] = Field(
        default=(2, 2, 2, 2),
        description="blocks on each level of encoder and decoder, the finest first; the bottleneck "
        "has as many as the last. MedNeXt-M: (3, 4, 4, 4), MedNeXt-L: (3, 4, 8, 8)",
    )
    expansion: int | tuple[int, ...] = Field(
        default=2,
        description="expansion ratio inside a block, on all levels or on each. MedNeXt-B and "
        "MedNeXt-M: (2, 3, 4, 4), MedNeXt-L: (3, 4, 8, 8)",
    )


SPEC = ArchitectureSpec(
    name="mednext",
    factory="fseft.builtin.architectures.mednext:MedNeXt",
    summary="U-Net of ConvNeXt blocks, small, base, medium or large; small: 5.6 M parameters",
    config=MedNeXtConfig,
    reference="Roy et al. 2023, arXiv:2303.09975",
)


class MedNeXt(BaseArchitecture):
    """Architecture `mednext`; state dicts have the names of MONAI's class.

    The weight of its classifier is (out, in, 1, 1, 1); MONAI's classifier is a transposed
    convolution with a weight (in, out, 1, 1, 1).
    """

    config_class = MedNeXtConfig
    divisor: Triple = (16, 16, 16)
    minimum_patch: Triple = (32, 32, 32)
    head_pattern = r"out_0\.conv_out"
    before_norm_pattern = r".*\.conv1"

    def build(self, *, in_channels: int, out_channels: int, config: MedNeXtConfig) -> nn.Module:
        """Builds a network (B, in, i, j, k) -> logits (B, out, i, j, k)."""
        import_lazily("monai")
        from monai.networks.nets.mednext import MedNeXt as Network
        from torch import nn

        blocks, ratios = config.blocks, config.expansion
        self.require_divisible(2 ** len(blocks))
        if isinstance(ratios, int):
            ratios = (ratios,) * len(blocks)
        network: nn.Module = Network(
            3,
            config.init_filters,
            in_channels,
            out_channels,
            encoder_expansion_ratio=ratios,
            bottleneck_expansion_ratio=ratios[-1],
            decoder_expansion_ratio=ratios[::-1],
            kernel_size=config.kernel_size,
            use_residual_connection=True,
            blocks_down=blocks,
            blocks_bottleneck=blocks[-1],
            blocks_up=blocks[::-1],
        )
        self.replace_head(network, nn.Conv3d(config.init_filters, out_channels, kernel_size=1))
        return network

    def role(self, name: str, module: nn.Module) -> Role | None:
        """Returns `block` for a whole MedNeXt block, otherwise the role of the layer."""
        import_lazily("monai")
        from monai.networks.blocks.mednext_block import MedNeXtBlock

        return "block" if type(module) is MedNeXtBlock else super().role(name, module)

    def part_and_stage(self, network: nn.Module, name: str) -> tuple[PartName, int]:
        """Counts encoder levels from the finest, decoder levels from the coarsest."""
        deepest = module_count(network, "up_blocks")
        if name == "stem":
            return "encoder", 0
        if name.startswith("bottleneck"):
            return "bottleneck", deepest
        if name.startswith(("up_blocks", "dec_stages")):
            return "decoder", deepest - 1 - level_of(name)
        return "encoder", level_of(name)
