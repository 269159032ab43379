"""Full fine-tuning: every weight of the pre-trained network is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.builtin.reference_recipe import reference
from fseft.plugin import Config, MethodSpec

if TYPE_CHECKING:
    from torch import Generator, nn

    from fseft.learn.adapters.method import AdaptedNetwork
    from fseft.learn.networks.roles import Architecture, Target

SPEC = MethodSpec(
    name="full",
    factory="fseft.builtin.methods.full:Full",
    summary="train every weight, from the pre-trained ones",
    tunes=("encoder", "bottleneck", "decoder"),
    presets=reference(1e-4),
)


class Full:
    """Method `full`; `scratch` is the same on random weights."""

    learning_rate = 1e-3
    head_ratio = 10.0

    def __init__(self, config: Config) -> None:
        self.config = config

    def select(self, architecture: Architecture, network: nn.Module) -> list[Target]:
        """Everything."""
        return architecture.targets(network)

    def apply(
        self, architecture: Architecture, network: nn.Module, *, generator: Generator
    ) -> AdaptedNetwork:
        """Train all parameters, with dropout and batch statistics on where the network has them."""
        from fseft.learn.adapters.method import AdaptedNetwork, head_names

        adapted = AdaptedNetwork(network, learning_rate=self.learning_rate, train_mode=True)
        network.requires_grad_(True)
        adapted.unfreeze(head_names(architecture, network), rate=self.head_ratio)
        return adapted
