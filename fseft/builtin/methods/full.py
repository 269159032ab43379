"""Full fine-tuning: every weight of the pre-trained network is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.plugin import Config, MethodSpec

if TYPE_CHECKING:
    from torch import Generator, nn

    from fseft.learn.method import Adapted
    from fseft.learn.roles import Architecture, Target

SPEC = MethodSpec(
    name="full",
    factory="fseft.builtin.methods.full:Full",
    summary="train every weight, from the pre-trained ones",
)


class Full:
    """Method `full`; `scratch` is the same on random weights."""

    learning_rate = 3e-4
    head_rate = 10.0  # new rows start from nothing, the body does not

    def __init__(self, config: Config) -> None:
        self.config = config

    def select(self, architecture: Architecture, network: nn.Module) -> list[Target]:
        """Everything."""
        return architecture.targets(network)

    def apply(self, architecture: Architecture, network: nn.Module, *, generator: Generator) -> Adapted:  # noqa: ARG002
        """Train all parameters, with dropout and batch statistics on where the network has them."""
        from fseft.learn.method import Adapted

        adapted = Adapted(network, learning_rate=self.learning_rate, train_mode=True)
        network.requires_grad_(True)
        heads = (target.name for target in architecture.targets(network) if target.part == "head")
        adapted.also_train(heads, rate=self.head_rate)
        return adapted
