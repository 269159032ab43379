"""Affine: the scales and shifts of the norm layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.builtin.reference_recipe import reference
from fseft.plugin import Config, MethodSpec

if TYPE_CHECKING:
    from torch import Generator, nn

    from fseft.learn.adapters.method import AdaptedNetwork
    from fseft.learn.networks.roles import Architecture, Target

SPEC = MethodSpec(
    name="affine",
    factory="fseft.builtin.methods.affine:Affine",
    summary="train the scales and shifts of the norm layers",
    reference="Basu et al. 2023, arXiv:2304.01917 (affine layer norm)",
    presets=reference(1e-2),
)


class Affine:
    """Method `affine`."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def select(self, architecture: Architecture, network: nn.Module) -> list[Target]:
        """The norm layers that have parameters."""
        from fseft.learn.adapters.method import require_targets

        norms = [target for target in architecture.targets(network) if target.role == "norm"]
        return require_targets(norms, "norm layers with parameters", "affine")

    def apply(
        self, architecture: Architecture, network: nn.Module, *, generator: Generator
    ) -> AdaptedNetwork:
        """Freeze all but the norm layers and the head."""
        from fseft.learn.adapters.method import AdaptedNetwork

        norms = [target.name for target in self.select(architecture, network)]
        return AdaptedNetwork.freeze_except(norms, architecture, network, learning_rate=1e-2)
