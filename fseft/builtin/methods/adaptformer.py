"""AdaptFormer: a small bottleneck beside the feed-forward part of each transformer block."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from fseft.builtin.reference_recipe import reference
from fseft.plugin import Config, MethodSpec

if TYPE_CHECKING:
    from torch import Generator, nn

    from fseft.learn.adapters.method import AdaptedNetwork
    from fseft.learn.networks.roles import Architecture, Target


class AdaptFormerConfig(Config):
    """How wide the bottleneck is, and how much it counts."""

    rank: int = Field(default=16, ge=1, description="width of the bottleneck")
    scale: float = Field(default=0.1, gt=0, description="factor of its output")


SPEC = MethodSpec(
    name="adaptformer",
    factory="fseft.builtin.methods.adaptformer:AdaptFormer",
    summary="train a bottleneck beside the feed-forward part of each transformer block",
    config=AdaptFormerConfig,
    reference="Chen et al. 2022, arXiv:2205.13535",
    presets=reference(1e-2, rank=16, scale=0.1),
)


class AdaptFormer:
    """Method `adaptformer`."""

    def __init__(self, config: AdaptFormerConfig) -> None:
        self.config = config

    def select(self, architecture: Architecture, network: nn.Module) -> list[Target]:
        """The feed-forward parts of the transformer blocks."""
        from fseft.learn.adapters.method import require_targets

        parts = [target for target in architecture.targets(network) if target.role == "mlp"]
        return require_targets(parts, "transformer blocks", "adaptformer")

    def apply(
        self, architecture: Architecture, network: nn.Module, *, generator: Generator
    ) -> AdaptedNetwork:
        """Put the bottlenecks in; the output is unchanged until training starts."""
        from fseft.learn.adapters.adapter_layers import Bottleneck, add_branch
        from fseft.learn.adapters.method import AdaptedNetwork

        targets = self.select(architecture, network)
        widths = {
            target.name.rpartition(".")[0]: target.module.get_parameter("weight").shape[1]
            for target in architecture.targets(network)
            if target.role == "mlp.fc1"
        }
        branches = []
        for target in targets:
            bottleneck = Bottleneck(
                widths[target.name], self.config.rank, self.config.scale, generator
            )
            branches.append(add_branch(target, bottleneck))
        return AdaptedNetwork.freeze_except(branches, architecture, network, learning_rate=1e-2)
