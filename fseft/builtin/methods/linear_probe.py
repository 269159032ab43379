"""Linear probe: a pointwise classifier on frozen features, started from the model's rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from fseft.builtin.reference_recipe import reference
from fseft.learn.adapters.method import BaseMethod
from fseft.plugin import Config, MethodSpec

if TYPE_CHECKING:
    from fseft.learn.adapters.adapted_network import AdaptedNetwork
    from fseft.learn.networks.roles import Target


class LinearProbeConfig(Config):
    """Optimiser of the last layer."""

    solver: Literal["adamw", "lbfgs"] = Field(
        default="adamw",
        description="lbfgs: the optimum of the cross-entropy on sampled voxels, without epochs",
    )

    @property
    def closed_form(self) -> bool:
        """Returns True with the L-BFGS solver."""
        return self.solver == "lbfgs"


SPEC = MethodSpec(
    name="linear-probe",
    factory="fseft.builtin.methods.linear_probe:LinearProbe",
    summary="train the last layer only, on frozen features",
    recommended_for="structures that the model segments already; the smallest adapter",
    config=LinearProbeConfig,
    access="black-box",
    reference="Silva-Rodríguez et al. 2025, Medical Image Analysis 103:103596, black-box track",
    presets=reference(1e-2, features="recomputed"),
)


class LinearProbe(BaseMethod):
    """Method `linear-probe`."""

    name, needs, learning_rate = "linear-probe", "a head", 1e-2
    config: LinearProbeConfig

    def wants(self, target: Target) -> bool:
        """Returns True for the head."""
        return target.part == "head"

    def adapted_type(self) -> type[AdaptedNetwork]:
        """Returns the class that fits the head by L-BFGS, if it is selected."""
        if not self.config.closed_form:
            return super().adapted_type()
        from fseft.learn.adapters.lbfgs import LBFGSProbe

        return LBFGSProbe
