"""SegResNet: MONAI's, as in its whole-body CT bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.learn.networks.base_architecture import BaseArchitecture, depth, level
from fseft.plugin import ArchitectureSpec

if TYPE_CHECKING:
    from torch import nn

    from fseft.learn.networks.roles import PartName
    from fseft.schemas import Triple

SPEC = ArchitectureSpec(
    name="segresnet",
    factory="fseft.builtin.architectures.segresnet:SegResNet",
    summary="residual encoder, small decoder, group norm; 19 M parameters at 32 filters",
    reference="Myronenko 2018, arXiv:1810.11654",
)


class SegResNet(BaseArchitecture):
    """Architecture `segresnet`; state dicts have the names of MONAI's class."""

    divisor: Triple = (8, 8, 8)
    minimum_patch: Triple = (16, 16, 16)
    classifier = r"conv_final\.2\.conv"
    normed = r".*\.conv1\.conv"  # norms come first in a block, so what leaves it has none

    def build(
        self,
        *,
        in_channels: int,
        out_channels: int,
        init_filters: int = 32,
        blocks_down: tuple[int, ...] = (1, 2, 2, 4),
        blocks_up: tuple[int, ...] | None = None,
        dropout_prob: float | None = None,
    ) -> nn.Module:
        """A network (B, in, i, j, k) -> (B, out, i, j, k).

        Args:
            in_channels: Of the image.
            out_channels: Of the head.
            init_filters: Width at full resolution; a multiple of 8, the number of groups.
            blocks_down: Residual blocks on each level, the finest first.
            blocks_up: Residual blocks on each level of the decoder, the coarsest first. Ones if not given.
            dropout_prob: After the first convolution.
        """
        from monai.networks.nets import SegResNet as Network

        self.refuse_deeper(2 ** (len(blocks_down) - 1))
        network: nn.Module = Network(
            3,
            init_filters,
            in_channels,
            out_channels,
            dropout_prob=dropout_prob,
            blocks_down=blocks_down,
            blocks_up=blocks_up or (1,) * (len(blocks_down) - 1),
        )
        return network

    def place(self, network: nn.Module, name: str) -> tuple[PartName, int]:
        """Encoder levels count from the finest, decoder levels from the coarsest."""
        deepest = depth(network, "up_layers")
        if name.startswith("up_"):
            return "decoder", deepest - 1 - level(name)
        stage = level(name) if name.startswith("down_layers") else 0
        if stage == deepest:
            return "bottleneck", stage
        return ("decoder" if name.startswith("conv_final") else "encoder"), stage
