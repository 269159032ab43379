"""Compacter: hypercomplex mixings of attention and feed-forward outputs, and the norm layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from fseft.builtin.reference_recipe import reference
from fseft.errors import FseftError
from fseft.learn.adapters.method import BaseMethod, require_targets
from fseft.plugin import Config, MethodSpec

if TYPE_CHECKING:
    from torch import Generator, nn

    from fseft.learn.networks.roles import Architecture, Target

MIXED = ("attn.proj", "mlp.fc2")


class CompacterConfig(Config):
    """Factorisation and initialisation of the mixings."""

    terms: int = Field(
        default=4, ge=1, description="n: Kronecker products per mixing; divides the widths"
    )
    identity_init: bool = Field(
        default=True, description="start as the model; false: start at random, as FSEFT does"
    )


SPEC = MethodSpec(
    name="compacter",
    factory="fseft.builtin.methods.compacter:Compacter",
    summary="mix the outputs of attention and feed-forward parts, by sums of Kronecker products; "
    "merges exactly",
    config=CompacterConfig,
    reference="Karimi Mahabadi et al. 2021, arXiv:2106.04647; FSEFT: layers of full width, no "
    "bottleneck",
    presets=reference(1e-2, terms=4, identity_init=False),
)


class Compacter(BaseMethod):
    """Method `compacter`.

    The mixing is linear and follows a linear layer directly, so that it is a delta on the weight
    and bias of that layer.
    """

    name, needs, learning_rate = "compacter", "transformer blocks", 1e-2
    config: CompacterConfig

    def wants(self, target: Target) -> bool:
        """Returns True for output layers of attention and MLPs, and norms before the decoder."""
        return target.part in ("encoder", "bottleneck") and target.role in (*MIXED, "norm")

    def select(self, architecture: Architecture, network: nn.Module) -> list[Target]:
        """Returns the layers that the method `wants`.

        Raises:
            IncompatibleError: All of them are norms.
        """
        targets = super().select(architecture, network)
        mixed = [target for target in targets if target.role in MIXED]
        require_targets(mixed, self.needs, self.name)
        return targets

    def attach(self, target: Target, generator: Generator) -> list[str]:
        """Adds a mixing of the outputs to a linear layer; trains a norm layer itself.

        Raises:
            FseftError: The number of terms does not divide the layer's width.
        """
        from fseft.learn.adapters.adapter_layers import BiasShift, Hypercomplex, add_delta

        if target.role == "norm":
            return [target.name]
        terms, residual = self.config.terms, self.config.identity_init
        mixing = Hypercomplex(self._width(target), terms, generator, residual=residual)
        trained = [add_delta(target, mixing)]
        if target.module.bias is not None:
            shift = BiasShift(target.module.get_parameter("bias"))
            trained += [add_delta(target, delta, "bias") for delta in (mixing, shift)]
        return trained

    def _width(self, target: Target) -> int:
        """Returns the number of outputs of a layer, which the number of terms must divide."""
        width = target.module.get_parameter("weight").shape[0]
        if width % self.config.terms:
            raise FseftError(
                f"terms is {self.config.terms}, which does not divide the width {width} of "
                f"{target.name}",
                hint="Set terms to a divisor of it.",
            )
        return width
