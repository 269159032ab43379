"""Architecture `segresnet-ds`: MONAI's SegResNetDS, as in CT-FM, without deep supervision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from fseft.lazy_imports import import_lazily
from fseft.learn.networks.base_architecture import BaseArchitecture, level_of, module_count
from fseft.plugin import ArchitectureSpec, Config

if TYPE_CHECKING:
    from torch import nn

    from fseft.learn.networks.roles import PartName
    from fseft.schemas import Triple


class SegResNetDSConfig(Config):
    """Hyper-parameters of `segresnet-ds`."""

    init_filters: int = Field(default=32, ge=1, description="width at full resolution")
    blocks_down: tuple[int, ...] = Field(
        default=(1, 2, 2, 4, 4),
        description="residual blocks on each encoder level, the finest first; each decoder level "
        "has one",
    )
    norm: Literal["batch", "instance"] = Field(default="batch", description="normalisation layers")


SPEC = ArchitectureSpec(
    name="segresnet-ds",
    factory="fseft.builtin.architectures.segresnet_ds:SegResNetDS",
    summary="residual encoder, small decoder, batch norm; the network of CT-FM, 87 M parameters",
    config=SegResNetDSConfig,
    reference="Myronenko 2018, arXiv:1810.11654; Pai et al. 2025, arXiv:2501.09001",
)


class SegResNetDS(BaseArchitecture):
    """Architecture `segresnet-ds`; state dicts have the names of MONAI's class.

    Of MONAI's heads only the one at full resolution is present.
    """

    config_class = SegResNetDSConfig
    divisor: Triple = (16, 16, 16)
    minimum_patch: Triple = (32, 32, 32)
    head_pattern = r"up_layers\.\d+\.head"
    # Blocks begin with a norm, so only their first convolution is followed by one.
    before_norm_pattern = r".*\.conv1"

    def build(self, *, in_channels: int, out_channels: int, config: SegResNetDSConfig) -> nn.Module:
        """Builds a network (B, in, i, j, k) -> logits (B, out, i, j, k)."""
        import_lazily("monai")
        from monai.networks.nets import SegResNetDS as Network

        self.require_divisible(2 ** (len(config.blocks_down) - 1))
        network: nn.Module = Network(
            3,
            config.init_filters,
            in_channels,
            out_channels,
            norm=config.norm,
            blocks_down=config.blocks_down,
        )
        return network

    def part_and_stage(self, network: nn.Module, name: str) -> tuple[PartName, int]:
        """Counts encoder levels from the finest, decoder levels from the coarsest."""
        deepest = module_count(network, "up_layers")
        if name.startswith("up_layers"):
            return "decoder", deepest - 1 - level_of(name)
        stage = 0 if name == "encoder.conv_init" else level_of(name)
        return ("bottleneck" if stage == deepest else "encoder"), stage
