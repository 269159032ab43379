"""Affine: the scales and shifts of the norm layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.builtin.reference import reference
from fseft.plugin import Config, MethodSpec

if TYPE_CHECKING:
    from torch import Generator, nn

    from fseft.learn.method import Adapted
    from fseft.learn.roles import Architecture, Target

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
        from fseft.learn.method import need

        norms = [target for target in architecture.targets(network) if target.role == "norm"]
        return need(norms, "norm layers with parameters", "affine")

    def apply(self, architecture: Architecture, network: nn.Module, *, generator: Generator) -> Adapted:  # noqa: ARG002
        """Freeze all but the norm layers and the head."""
        from fseft.learn.method import Adapted

        norms = [target.name for target in self.select(architecture, network)]
        return Adapted.frozen_but(norms, architecture, network, learning_rate=1e-2)
