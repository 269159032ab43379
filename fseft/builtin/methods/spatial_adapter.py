"""Spatial adapter: two small convolutions on the frozen features, added to them before the head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from fseft.builtin.reference_recipe import reference
from fseft.learn.adapters.method import BaseMethod
from fseft.plugin import Config, MethodSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Generator, nn

    from fseft.learn.adapters.adapted_network import AdaptedNetwork
    from fseft.learn.networks.roles import Architecture, Target


class SpatialAdapterConfig(Config):
    """Receptive field of the adapter."""

    kernel_size: Literal[1, 3, 5] = Field(default=3, description="of both convolutions, in voxels")


SPEC = MethodSpec(
    name="spatial-adapter",
    factory="fseft.builtin.methods.spatial_adapter:SpatialAdapter",
    summary="train two convolutions on the frozen features, and the last layer",
    recommended_for="structures that the model segments already; several adapters in one pass",
    config=SpatialAdapterConfig,
    access="black-box",
    reference="Silva-Rodríguez et al. 2025, Medical Image Analysis 103:103596, spatial black-box "
    "adapter",
    presets=reference(1e-4, features="recomputed", kernel_size=3),
)


class SpatialAdapter(BaseMethod):
    """Method `spatial-adapter`: head(f + conv2(relu(conv1(f)))), with conv2 zero at the start."""

    name, needs, learning_rate, head_lr_multiplier = "spatial-adapter", "a head", 1e-3, 10.0
    config: SpatialAdapterConfig

    def wants(self, target: Target) -> bool:
        """Returns True for the head."""
        return target.part == "head"

    def apply(
        self, architecture: Architecture, network: nn.Module, *, generator: Generator
    ) -> AdaptedNetwork:
        """Replaces the head by one with the adapter; the initial output is unchanged."""
        from fseft.learn.networks.heads import ResidualHead

        head = ResidualHead(architecture.head(network), self.config.kernel_size, generator)
        architecture.replace_head(network, head)
        return super().apply(architecture, network, generator=generator)

    def lr_multipliers(self, network: nn.Module) -> Mapping[str, float]:
        """Trains the convolutions at the base rate, and only the last layer at the head's."""
        from fseft.learn.networks.heads import ResidualHead

        modules = network.named_modules()
        (head,) = (name for name, module in modules if isinstance(module, ResidualHead))
        return {f"{head}.{convolution}.weight": 1.0 for convolution in ("first", "second")}
