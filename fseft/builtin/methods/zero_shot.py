"""Zero-shot: the model as it is, its rows for the structures that it knows. Nothing is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.plugin import Config, MethodSpec

if TYPE_CHECKING:
    from torch import Generator, nn

    from fseft.learn.method import Adapted
    from fseft.learn.roles import Architecture, Target

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

    def select(self, architecture: Architecture, network: nn.Module) -> list[Target]:  # noqa: ARG002
        """Nothing."""
        return []

    def apply(self, architecture: Architecture, network: nn.Module, *, generator: Generator) -> Adapted:  # noqa: ARG002
        """Freeze everything."""
        from fseft.learn.method import Adapted

        network.requires_grad_(False)
        return Adapted(network, learning_rate=0.0)
