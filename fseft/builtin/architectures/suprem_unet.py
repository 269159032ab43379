"""The U-Net of SuPreM, under the names of its public checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.learn.networks.base_architecture import TEXT_HEAD, BaseArchitecture, level
from fseft.plugin import ArchitectureSpec

if TYPE_CHECKING:
    from torch import nn

    from fseft.learn.networks.roles import PartName
    from fseft.schemas import Triple

SPEC = ArchitectureSpec(
    name="suprem-unet",
    factory="fseft.builtin.architectures.suprem_unet:SuPreMUNet",
    summary="U-Net of SuPreM and of the CLIP-driven universal model; 19 M parameters at a width of 64",
    reference="Li et al. 2024, arXiv:2501.11253; Zhou et al. 2019, arXiv:1908.06912",
)


class SuPreMUNet(BaseArchitecture):
    """Architecture `suprem-unet`; all but the head has the names of public state dicts."""

    divisor: Triple = (8, 8, 8)
    minimum_patch: Triple = (16, 16, 16)
    normed = r".*\.conv1"
    deepest = "down_tr512"

    def build(
        self, *, in_channels: int, out_channels: int, width: int = 64, text_classes: int = 0
    ) -> nn.Module:
        """A network (B, in, i, j, k) -> (B, out, i, j, k).

        Args:
            in_channels: Of the image.
            out_channels: Of the head.
            width: At full resolution; public checkpoints have 64.
            text_classes: Classes of a head driven by texts beside the plain one; for universal models.
        """
        from fseft.builtin.architectures.suprem_network import SuPreMNetwork

        network = SuPreMNetwork(in_channels, out_channels, width)
        if text_classes:
            from fseft.learn.networks.text_head import TextHead

            network.add_module(TEXT_HEAD, TextHead(width, 8 * width, text_classes))
        return network

    def place(self, network: nn.Module, name: str) -> tuple[PartName, int]:  # noqa: ARG002 - always four levels
        """Stages are named by the width that they have in public checkpoints."""
        stage = (64, 128, 256, 512).index(level(name))
        if stage == 3:
            return "bottleneck", stage
        return ("encoder" if name.startswith("down") else "decoder"), stage
