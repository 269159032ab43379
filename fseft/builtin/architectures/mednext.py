"""MedNeXt: MONAI's, a U-Net of ConvNeXt blocks, without the heads of deep supervision."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.learn.networks.base_architecture import BaseArchitecture, depth, level
from fseft.plugin import ArchitectureSpec

if TYPE_CHECKING:
    from torch import nn

    from fseft.learn.networks.roles import PartName, Role
    from fseft.schemas import Triple

SPEC = ArchitectureSpec(
    name="mednext",
    factory="fseft.builtin.architectures.mednext:MedNeXt",
    summary="U-Net of ConvNeXt blocks, small, base, medium or large; the small one has 5.6 M parameters",
    reference="Roy et al. 2023, arXiv:2303.09975",
)


class MedNeXt(BaseArchitecture):
    """Architecture `mednext`; state dicts have the names of MONAI's class.

    The weight of its classifier is (out, in, 1, 1, 1); MONAI's, of a transposed convolution, is (in, out, 1, 1, 1).
    """

    divisor: Triple = (16, 16, 16)
    minimum_patch: Triple = (32, 32, 32)
    classifier = r"out_0\.conv_out"
    normed = r".*\.conv1"

    def build(
        self,
        *,
        in_channels: int,
        out_channels: int,
        init_filters: int = 32,
        kernel_size: int = 3,
        blocks: tuple[int, ...] = (2, 2, 2, 2),
        expansion: int | tuple[int, ...] = 2,
    ) -> nn.Module:
        """A network (B, in, i, j, k) -> (B, out, i, j, k); the defaults are those of the small one.

        Args:
            in_channels: Of the image.
            out_channels: Of the head.
            init_filters: Width at full resolution.
            kernel_size: Of the spatial convolutions; 3 or 5 in the paper.
            blocks: On each level of encoder and decoder, the finest first; the bottleneck has as many as the last.
                The medium network of the paper has (3, 4, 4, 4), the large one (3, 4, 8, 8).
            expansion: Of the width inside a block, on all levels or on each. The base and the medium network have
                (2, 3, 4, 4), the large one (3, 4, 8, 8).
        """
        from monai.networks.nets.mednext import MedNeXt as Network
        from torch import nn

        self.refuse_deeper(2 ** len(blocks))
        ratios = (expansion,) * len(blocks) if isinstance(expansion, int) else expansion
        network: nn.Module = Network(
            3,
            init_filters,
            in_channels,
            out_channels,
            encoder_expansion_ratio=ratios,
            bottleneck_expansion_ratio=ratios[-1],
            decoder_expansion_ratio=ratios[::-1],
            kernel_size=kernel_size,
            use_residual_connection=True,
            blocks_down=blocks,
            blocks_bottleneck=blocks[-1],
            blocks_up=blocks[::-1],
        )
        self.replace_head(network, nn.Conv3d(init_filters, out_channels, kernel_size=1))
        return network

    def role(self, name: str, module: nn.Module) -> Role | None:
        """Beside the layers, the whole blocks."""
        from monai.networks.blocks.mednext_block import MedNeXtBlock

        return "block" if type(module) is MedNeXtBlock else super().role(name, module)

    def place(self, network: nn.Module, name: str) -> tuple[PartName, int]:
        """Encoder levels count from the finest, decoder levels from the coarsest."""
        deepest = depth(network, "up_blocks")
        if name == "stem":
            return "encoder", 0
        if name.startswith("bottleneck"):
            return "bottleneck", deepest
        if name.startswith(("up_blocks", "dec_stages")):
            return "decoder", deepest - 1 - level(name)
        return "encoder", level(name)
