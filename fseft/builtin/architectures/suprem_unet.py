"""Architecture `suprem-unet`: the U-Net of SuPreM and of the CLIP-driven universal model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from fseft.learn.networks.base_architecture import TEXT_HEAD, BaseArchitecture, level_of
from fseft.plugin import ArchitectureSpec, Config

if TYPE_CHECKING:
    from torch import nn

    from fseft.learn.networks.roles import PartName
    from fseft.schemas import Triple


class SuPreMUNetConfig(Config):
    """Hyper-parameters of `suprem-unet`."""

    width: int = Field(
        default=64, ge=2, description="width at full resolution; public checkpoints have 64"
    )
    text_classes: int = Field(
        default=0,
        ge=0,
        description="classes of an additional text-driven head (universal models); 0: no such head",
    )


SPEC = ArchitectureSpec(
    name="suprem-unet",
    factory="fseft.builtin.architectures.suprem_unet:SuPreMUNet",
    summary="U-Net of SuPreM and of the CLIP-driven universal model; 19 M parameters",
    config=SuPreMUNetConfig,
    reference="Li et al. 2024, arXiv:2501.11253; Zhou et al. 2019, arXiv:1908.06912",
)


class SuPreMUNet(BaseArchitecture):
    """Architecture `suprem-unet`; layers except the head have the names of public checkpoints."""

    config_class = SuPreMUNetConfig
    divisor: Triple = (8, 8, 8)
    minimum_patch: Triple = (16, 16, 16)
    before_norm_pattern = r".*\.conv1"
    deepest_module = "down_tr512"

    def build(self, *, in_channels: int, out_channels: int, config: SuPreMUNetConfig) -> nn.Module:
        """Builds a network (B, in, i, j, k) -> logits (B, out, i, j, k)."""
        from fseft.builtin.architectures.networks.suprem import SuPreMNetwork

        network = SuPreMNetwork(in_channels, out_channels, config.width)
        if config.text_classes:
            from fseft.learn.networks.text_head import TextHead

            text_head = TextHead(config.width, 8 * config.width, config.text_classes)
            network.add_module(TEXT_HEAD, text_head)
        return network

    def part_and_stage(self, network: nn.Module, name: str) -> tuple[PartName, int]:
        """Returns one of four levels: names contain its width in public checkpoints."""
        del network
        stage = (64, 128, 256, 512).index(level_of(name))
        if stage == 3:
            return "bottleneck", stage
        return ("encoder" if name.startswith("down") else "decoder"), stage
