"""Bias: the biases of the network, where they have an effect."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from fseft.builtin.reference_recipe import reference
from fseft.learn.networks.roles import Role  # noqa: TC001 - pydantic reads it
from fseft.plugin import Config, MethodSpec

if TYPE_CHECKING:
    from torch import Generator, nn

    from fseft.learn.adapters.method import AdaptedNetwork
    from fseft.learn.networks.roles import Architecture, Target


class BiasConfig(Config):
    """Which biases."""

    roles: tuple[Role, ...] = Field(default=(), description="roles of the layers; empty: all")
    rel_pos_bias: bool = Field(
        default=False, description="train relative position biases as well, as FSEFT does"
    )


SPEC = MethodSpec(
    name="bias",
    factory="fseft.builtin.methods.bias:Bias",
    summary="train the biases, but for those that a norm layer takes away again",
    config=BiasConfig,
    reference="Ben Zaken et al. 2022, arXiv:2106.10199 (BitFit)",
    presets=reference(
        1e-2, rel_pos_bias=True, roles=("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    ),
)


class Bias:
    """Method `bias`."""

    def __init__(self, config: BiasConfig) -> None:
        self.config = config

    def select(self, architecture: Architecture, network: nn.Module) -> list[Target]:
        """The layers with a bias that has an effect, and the position biases if they are asked for."""
        from fseft.learn.adapters.method import require_targets

        chosen = [
            target
            for target in architecture.targets(network)
            if target.part != "head" and not target.followed_by_norm and self._names(target)
        ]
        return require_targets(chosen, "layers with a bias", "bias")

    def apply(
        self, architecture: Architecture, network: nn.Module, *, generator: Generator
    ) -> AdaptedNetwork:
        """Freeze all but the biases and the head."""
        from fseft.learn.adapters.method import AdaptedNetwork

        targets = self.select(architecture, network)
        biases = [f"{target.name}.{name}" for target in targets for name in self._names(target)]
        return AdaptedNetwork.freeze_except(biases, architecture, network, learning_rate=1e-2)

    def _names(self, target: Target) -> list[str]:
        """The parameters of the module itself that are biases."""
        own = [name for name, _ in target.module.named_parameters(recurse=False)]
        if target.role == "pos_bias":
            return own if self.config.rel_pos_bias else []
        wanted = not self.config.roles or target.role in self.config.roles
        return [name for name in own if name == "bias" and wanted]
