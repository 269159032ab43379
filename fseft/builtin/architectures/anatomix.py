"""Architecture `anatomix`: the U-Net of anatomix, whose features are those of its public models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from fseft.learn.networks.base_architecture import BaseArchitecture, level_of, limits_by_strides
from fseft.plugin import ArchitectureSpec, Config

if TYPE_CHECKING:
    from torch import nn

    from fseft.learn.networks.roles import PartName, PatchLimits
    from fseft.schemas import Triple


class AnatomixConfig(Config):
    """Hyper-parameters of `anatomix`."""

    width: int = Field(default=16, ge=1, description="width at full resolution")
    features: int = Field(default=16, ge=1, description="width of the head's input")
    levels: int = Field(default=4, ge=1, description="downsampling steps")
    variant: Literal["batch", "instance"] = Field(
        default="batch",
        description="`batch`: batch norm, maximum pooling and nearest neighbours; `instance`: "
        "instance norm without weights, average pooling and trilinear upsampling",
    )


SPEC = ArchitectureSpec(
    name="anatomix",
    factory="fseft.builtin.architectures.anatomix:Anatomix",
    summary="U-Net of anatomix with reflection padding; 6 M parameters at width 16",
    config=AnatomixConfig,
    reference="Dey et al. 2024, arXiv:2411.02372",
)


class Anatomix(BaseArchitecture):
    """Architecture `anatomix`; the pointwise head follows the features of the public models."""

    config_class = AnatomixConfig
    divisor: Triple = (16, 16, 16)
    minimum_patch: Triple = (32, 32, 32)

    def build(self, *, in_channels: int, out_channels: int, config: AnatomixConfig) -> nn.Module:
        """Builds a network (B, in, i, j, k) -> logits (B, out, i, j, k)."""
        from fseft.builtin.architectures.networks.anatomix import AnatomixNetwork

        return AnatomixNetwork(
            in_channels,
            out_channels,
            width=config.width,
            features=config.features,
            levels=config.levels,
            instance=config.variant == "instance",
        )

    def patch_limits(self, config: AnatomixConfig) -> PatchLimits:
        """Returns the limits of a network: reflection needs two voxels at the coarsest level."""
        return limits_by_strides([2] * config.levels)

    def part_and_stage(self, network: nn.Module, name: str) -> tuple[PartName, int]:
        """Counts the poolings and upsamplings before a layer."""
        number = level_of(name)
        pools: list[int] = network.pools  # type: ignore[assignment]
        upsamplings: list[int] = network.upsamplings  # type: ignore[assignment]
        down = sum(pool < number for pool in pools)
        up = sum(upsampling < number for upsampling in upsamplings)
        if up:
            return "decoder", down - up
        return ("bottleneck" if down == len(pools) else "encoder"), down

    def followed_by_norm(self, network: nn.Module, name: str) -> bool:
        """Returns whether a layer is a convolution of the body, except the last one."""
        from torch import nn

        layers: nn.ModuleList = network.layers  # type: ignore[assignment]
        number = level_of(name)
        is_last = number == len(layers) - 1
        return isinstance(layers[number], nn.Conv3d) and not is_last
