"""Affine: the scales and shifts of the norm layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.builtin.reference_recipe import reference
from fseft.learn.adapters.method import BaseMethod
from fseft.plugin import MethodSpec

if TYPE_CHECKING:
    from fseft.learn.networks.roles import Target

SPEC = MethodSpec(
    name="affine",
    factory="fseft.builtin.methods.affine:Affine",
    summary="train the scales and shifts of the norm layers",
    reference="Basu et al. 2023, arXiv:2304.01917 (affine layer norm)",
    presets=reference(1e-2),
)


class Affine(BaseMethod):
    """Method `affine`."""

    name, needs, learning_rate = "affine", "norm layers with parameters", 3e-2

    def wants(self, target: Target) -> bool:
        """Returns True for the norm layers that have parameters."""
        return target.role == "norm"
