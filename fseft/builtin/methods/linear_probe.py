"""Linear probe: a new pointwise classifier on frozen features, started from the model's own rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from fseft.builtin.reference_recipe import reference
from fseft.plugin import Config, MethodSpec

if TYPE_CHECKING:
    from torch import Generator, nn

    from fseft.learn.adapters.method import AdaptedNetwork
    from fseft.learn.networks.roles import Architecture, Target


class LinearProbeConfig(Config):
    """How the last layer is found."""

    solver: Literal["adamw", "lbfgs"] = Field(
        default="adamw",
        description="lbfgs: the optimum of the cross-entropy on sampled voxels, without epochs",
    )

    @property
    def solves(self) -> bool:
        """With L-BFGS."""
        return self.solver == "lbfgs"


SPEC = MethodSpec(
    name="linear-probe",
    factory="fseft.builtin.methods.linear_probe:LinearProbe",
    summary="train the last layer only, on frozen features",
    config=LinearProbeConfig,
    access="black-box",
    reference="Silva-Rodríguez et al. 2025, Medical Image Analysis 103:103596, black-box track",
    presets=reference(1e-2, features="recomputed"),
)


class LinearProbe:
    """Method `linear-probe`."""

    def __init__(self, config: LinearProbeConfig) -> None:
        self.config = config

    def select(self, architecture: Architecture, network: nn.Module) -> list[Target]:
        """The head."""
        return [target for target in architecture.targets(network) if target.part == "head"]

    def apply(
        self, architecture: Architecture, network: nn.Module, *, generator: Generator
    ) -> AdaptedNetwork:
        """Freeze all but the head."""
        from fseft.learn.adapters.lbfgs import LBFGSProbe
        from fseft.learn.adapters.method import AdaptedNetwork

        kind = LBFGSProbe if self.config.solves else AdaptedNetwork
        return kind.freeze_except([], architecture, network, learning_rate=1e-2)
