"""Zero-shot: the model as it is, its rows for the structures that it knows. Nothing is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.plugin import Config, MethodSpec

if TYPE_CHECKING:
    from torch import Generator, nn

    from fseft.learn.adapters.method import AdaptedNetwork
    from fseft.learn.networks.roles import Architecture, Target

SPEC = MethodSpec(
    name="zero-shot",
    factory="fseft.builtin.methods.zero_shot:ZeroShot",
    summary="the model as it is, for the structures that it knows",
    access="black-box",
    trains=False,
)


class ZeroShot:
    """Method `zero-shot`."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def select(self, architecture: Architecture, network: nn.Module) -> list[Target]:
        """Nothing."""
        return []

    def apply(
        self, architecture: Architecture, network: nn.Module, *, generator: Generator
    ) -> AdaptedNetwork:
        """Freeze everything."""
        from fseft.learn.adapters.method import AdaptedNetwork

        network.requires_grad_(False)
        return AdaptedNetwork(network, learning_rate=0.0)
