"""Zero-shot: the model without training, for the structures among its classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.learn.adapters.method import BaseMethod
from fseft.plugin import MethodSpec

if TYPE_CHECKING:
    from torch import Generator, nn

    from fseft.learn.adapters.adapted_network import AdaptedNetwork
    from fseft.learn.networks.roles import Architecture, Target

SPEC = MethodSpec(
    name="zero-shot",
    factory="fseft.builtin.methods.zero_shot:ZeroShot",
    summary="the model without training, for the structures among its classes",
    recommended_for="structures that the model segments already, without training",
    access="black-box",
    trains=False,
)


class ZeroShot(BaseMethod):
    """Method `zero-shot`."""

    name = "zero-shot"

    def select(
        self,
        architecture: Architecture,  # noqa: ARG002
        network: nn.Module,  # noqa: ARG002
    ) -> list[Target]:
        """Returns no layer."""
        return []

    def apply(
        self,
        architecture: Architecture,  # noqa: ARG002
        network: nn.Module,
        *,
        generator: Generator,  # noqa: ARG002
    ) -> AdaptedNetwork:
        """Freezes the whole network."""
        network.requires_grad_(False)
        return self.adapted_type()(network, learning_rate=0.0)
