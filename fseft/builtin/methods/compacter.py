"""Compacter: a hypercomplex mixing of what attention and feed-forward parts give, and the norm layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from fseft.builtin.reference_recipe import reference
from fseft.plugin import Config, MethodSpec

if TYPE_CHECKING:
    from torch import Generator, nn

    from fseft.learn.adapters.method import AdaptedNetwork
    from fseft.learn.networks.roles import Architecture, Target

MIXED = ("attn.proj", "mlp.fc2")


class CompacterConfig(Config):
    """Into how many products a mixing is split, and how it starts."""

    terms: int = Field(
        default=4, ge=1, description="n: Kronecker products per mixing; divides the widths"
    )
    identity_init: bool = Field(
        default=True, description="start as the model; false: at random, as FSEFT does"
    )


SPEC = MethodSpec(
    name="compacter",
    factory="fseft.builtin.methods.compacter:Compacter",
    summary="mix the outputs of attention and feed-forward parts, by sums of Kronecker products; merges exactly",
    config=CompacterConfig,
    reference="Karimi Mahabadi et al. 2021, arXiv:2106.04647; FSEFT: layers of full width, nothing between them",
    presets=reference(1e-2, terms=4, identity_init=False),
)


class Compacter:
    """Method `compacter`. The mixing is linear and comes right after a linear layer: it is a change of its weights."""

    def __init__(self, config: CompacterConfig) -> None:
        self.config = config

    def select(self, architecture: Architecture, network: nn.Module) -> list[Target]:
        """The last layers of the attention and feed-forward parts, and the norm layers of the encoder."""
        from fseft.learn.adapters.method import require_targets

        encoder = [
            target
            for target in architecture.targets(network)
            if target.part in ("encoder", "bottleneck")
        ]
        require_targets(
            [target for target in encoder if target.role in MIXED],
            "transformer blocks",
            "compacter",
        )
        return [target for target in encoder if target.role in (*MIXED, "norm")]

    def apply(
        self, architecture: Architecture, network: nn.Module, *, generator: Generator
    ) -> AdaptedNetwork:
        """Put a mixing on the weight and bias of each last layer.

        Raises:
            FseftError: The number of terms does not divide a layer's width.
        """
        from fseft.learn.adapters.adapter_layers import BiasShift, Hypercomplex, add_delta
        from fseft.learn.adapters.method import AdaptedNetwork

        trained = []
        for target in self.select(architecture, network):
            if target.role == "norm":
                trained.append(target.name)
                continue
            width = self._width(target)
            mixing = Hypercomplex(
                width, self.config.terms, generator, residual=self.config.identity_init
            )
            trained.append(add_delta(target, mixing))
            if target.module.bias is not None:
                shift = BiasShift(target.module.get_parameter("bias"))
                trained += [add_delta(target, delta, "bias") for delta in (mixing, shift)]
        return AdaptedNetwork.freeze_except(trained, architecture, network, learning_rate=1e-2)

    def _width(self, target: Target) -> int:
        from fseft.errors import FseftError

        width = target.module.get_parameter("weight").shape[0]
        if width % self.config.terms:
            raise FseftError(
                f"terms is {self.config.terms}, which does not divide the width {width} of {target.name}",
                hint="Set terms to a divisor of it.",
            )
        return width
