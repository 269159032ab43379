"""AdaptFormer: a small bottleneck parallel to the feed-forward part of each transformer block."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from fseft.builtin.reference_recipe import reference
from fseft.learn.adapters.method import BaseMethod
from fseft.plugin import Config, MethodSpec

if TYPE_CHECKING:
    from torch import Generator

    from fseft.learn.networks.roles import Target


class AdaptFormerConfig(Config):
    """Width and output scale of the bottlenecks."""

    rank: int = Field(default=16, ge=1, description="width of the bottleneck")
    scale: float = Field(default=0.1, gt=0, description="factor of its output")


SPEC = MethodSpec(
    name="adaptformer",
    factory="fseft.builtin.methods.adaptformer:AdaptFormer",
    summary="train a bottleneck parallel to the feed-forward part of each transformer block",
    config=AdaptFormerConfig,
    reference="Chen et al. 2022, arXiv:2205.13535",
    presets=reference(1e-2, rank=16, scale=0.1),
)


class AdaptFormer(BaseMethod):
    """Method `adaptformer`; the output is unchanged until training starts."""

    name, needs, learning_rate = "adaptformer", "transformer blocks", 1e-2
    config: AdaptFormerConfig

    def wants(self, target: Target) -> bool:
        """Returns True for the feed-forward parts of transformer blocks."""
        return target.role == "mlp"

    def attach(self, target: Target, generator: Generator) -> list[str]:
        """Adds a bottleneck of the width of the first linear layer's input."""
        from torch import nn

        from fseft.learn.adapters.adapter_layers import Bottleneck, add_branch

        first = next(layer for layer in target.module.modules() if isinstance(layer, nn.Linear))
        rank, scale = self.config.rank, self.config.scale
        return [add_branch(target, Bottleneck(first.in_features, rank, scale, generator))]
