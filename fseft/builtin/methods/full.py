"""Full fine-tuning: all weights of the pre-trained network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.builtin.reference_recipe import reference
from fseft.learn.adapters.method import BaseMethod
from fseft.plugin import MethodSpec

if TYPE_CHECKING:
    from torch import Generator, nn

    from fseft.learn.adapters.adapted_network import AdaptedNetwork
    from fseft.learn.networks.roles import Architecture, Target

SPEC = MethodSpec(
    name="full",
    factory="fseft.builtin.methods.full:Full",
    summary="train all weights, from the pre-trained ones",
    recommended_for="new structures, with enough memory and disk space",
    tunes=("encoder", "bottleneck", "decoder"),
    presets=reference(1e-4),
)


class Full(BaseMethod):
    """Method `full`; `scratch` is the same from random weights.

    Attributes:
        learning_rate_if_small: Default learning rate of small networks, see `is_small`.
    """

    name, needs, learning_rate, head_lr_multiplier = "full", "layers", 3e-3, 10.0
    learning_rate_if_small = 8e-3

    def wants(self, target: Target) -> bool:  # noqa: ARG002
        """Returns True."""
        return True

    def apply(
        self, architecture: Architecture, network: nn.Module, *, generator: Generator
    ) -> AdaptedNetwork:
        """Trains all parameters, with dropout and batch statistics active."""
        from fseft.learn.networks.backbone import is_small

        adapted = super().apply(architecture, network, generator=generator)
        network.requires_grad_(True)
        adapted.train_mode = True
        if is_small(network):
            adapted.learning_rate = self.learning_rate_if_small
        return adapted
