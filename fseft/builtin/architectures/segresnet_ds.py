"""SegResNetDS: MONAI's, as in CT-FM, without the heads of deep supervision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from fseft.learn.networks.base_architecture import BaseArchitecture, depth, level
from fseft.plugin import ArchitectureSpec

if TYPE_CHECKING:
    from torch import nn

    from fseft.learn.networks.roles import PartName
    from fseft.schemas import Triple

SPEC = ArchitectureSpec(
    name="segresnet-ds",
    factory="fseft.builtin.architectures.segresnet_ds:SegResNetDS",
    summary="residual encoder, small decoder, batch norm; the network of CT-FM, 87 M parameters at 32 filters",
    reference="Myronenko 2018, arXiv:1810.11654; Pai et al. 2025, arXiv:2501.09001",
)


class SegResNetDS(BaseArchitecture):
    """Architecture `segresnet-ds`; state dicts have the names of MONAI's class, with one head, at full resolution."""

    divisor: Triple = (16, 16, 16)
    minimum_patch: Triple = (32, 32, 32)
    classifier = r"up_layers\.\d+\.head"
    normed = r".*\.conv1"  # norms come first in a block, so what leaves it has none

    def build(
        self,
        *,
        in_channels: int,
        out_channels: int,
        init_filters: int = 32,
        blocks_down: tuple[int, ...] = (1, 2, 2, 4, 4),
        norm: Literal["batch", "instance"] = "batch",
    ) -> nn.Module:
        """A network (B, in, i, j, k) -> (B, out, i, j, k).

        Args:
            in_channels: Of the image.
            out_channels: Of the head.
            init_filters: Width at full resolution.
            blocks_down: Residual blocks on each level, the finest first; the decoder has one on each.
            norm: Kind of the norm layers.
        """
        from monai.networks.nets import SegResNetDS as Network

        self.refuse_deeper(2 ** (len(blocks_down) - 1))
        network: nn.Module = Network(
            3, init_filters, in_channels, out_channels, norm=norm, blocks_down=blocks_down
        )
        return network

    def place(self, network: nn.Module, name: str) -> tuple[PartName, int]:
        """Encoder levels count from the finest, decoder levels from the coarsest."""
        deepest = depth(network, "up_layers")
        if name.startswith("up_layers"):
            return "decoder", deepest - 1 - level(name)
        stage = 0 if name == "encoder.conv_init" else level(name)
        return ("bottleneck" if stage == deepest else "encoder"), stage
