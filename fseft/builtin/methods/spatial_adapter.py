"""Spatial adapter: two small convolutions on the frozen features, added to them before the head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from fseft.builtin.reference_recipe import reference
from fseft.plugin import Config, MethodSpec

if TYPE_CHECKING:
    from torch import Generator, nn

    from fseft.learn.adapters.method import AdaptedNetwork
    from fseft.learn.networks.roles import Architecture, Target


class SpatialAdapterConfig(Config):
    """How far a voxel sees."""

    kernel_size: Literal[1, 3, 5] = Field(default=3, description="1 looks at the voxel alone")


SPEC = MethodSpec(
    name="spatial-adapter",
    factory="fseft.builtin.methods.spatial_adapter:SpatialAdapter",
    summary="train two convolutions on the frozen features, and the last layer",
    config=SpatialAdapterConfig,
    access="black-box",
    reference="Silva-Rodríguez et al. 2025, Medical Image Analysis 103:103596, spatial black-box adapter",
    presets=reference(1e-4, features="recomputed", kernel_size=3),
)


class SpatialAdapter:
    """Method `spatial-adapter`: head(f + conv(relu(conv(f)))), the second convolution zero at the start."""

    def __init__(self, config: SpatialAdapterConfig) -> None:
        self.config = config

    def select(self, architecture: Architecture, network: nn.Module) -> list[Target]:
        """The head."""
        return [target for target in architecture.targets(network) if target.part == "head"]

    def apply(
        self, architecture: Architecture, network: nn.Module, *, generator: Generator
    ) -> AdaptedNetwork:
        """Freeze the network and put the adapter into its head; the output is unchanged until training starts."""
        from fseft.learn.adapters.method import AdaptedNetwork
        from fseft.learn.networks.heads import ResidualHead

        architecture.replace_head(
            network, ResidualHead(architecture.head(network), self.config.kernel_size, generator)
        )
        (head,) = self.select(architecture, network)
        rates = {f"{head.name}.{convolution}.weight": 1.0 for convolution in ("first", "second")}
        return AdaptedNetwork.freeze_except(
            [], architecture, network, learning_rate=1e-3, head_ratio=10.0, rates=rates
        )
