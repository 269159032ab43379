"""Bias: the biases of the network that have an effect."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from fseft.builtin.reference_recipe import reference
from fseft.learn.adapters.method import BaseMethod
from fseft.learn.networks.roles import Role  # noqa: TC001 - pydantic reads it
from fseft.plugin import Config, MethodSpec

if TYPE_CHECKING:
    from torch import Generator

    from fseft.learn.networks.roles import Target


class BiasConfig(Config):
    """Layers whose biases are trained."""

    roles: tuple[Role, ...] = Field(default=(), description="roles of the layers; empty: all")
    rel_pos_bias: bool = Field(
        default=False, description="train relative position biases as well, as FSEFT does"
    )


SPEC = MethodSpec(
    name="bias",
    factory="fseft.builtin.methods.bias:Bias",
    summary="train the biases, except those that a norm layer cancels",
    config=BiasConfig,
    reference="Ben Zaken et al. 2022, arXiv:2106.10199 (BitFit)",
    presets=reference(
        1e-2, rel_pos_bias=True, roles=("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    ),
)


class Bias(BaseMethod):
    """Method `bias`: BitFit without the biases that a norm layer cancels."""

    name, needs, learning_rate = "bias", "layers with a bias", 1e-2
    config: BiasConfig

    def wants(self, target: Target) -> bool:
        """Returns True for layers with an effective bias, and for selected position biases."""
        return target.part != "head" and not target.followed_by_norm and bool(self._biases(target))

    def attach(self, target: Target, generator: Generator) -> list[str]:  # noqa: ARG002
        """Trains the biases of a layer."""
        return [f"{target.name}.{name}" for name in self._biases(target)]

    def _biases(self, target: Target) -> list[str]:
        """Returns the names of the selected parameters within the target's module."""
        names = [name for name, _ in target.module.named_parameters(recurse=False)]
        if target.role == "pos_bias":
            return names if self.config.rel_pos_bias else []
        selected = not self.config.roles or target.role in self.config.roles
        return [name for name in names if name == "bias" and selected]
