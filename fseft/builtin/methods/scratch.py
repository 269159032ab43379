"""Scratch: the same network from random weights, the baseline of pre-training."""

from __future__ import annotations

from fseft.builtin.methods.full import Full
from fseft.builtin.reference_recipe import reference
from fseft.plugin import MethodSpec

SPEC = MethodSpec(
    name="scratch",
    factory="fseft.builtin.methods.scratch:Scratch",
    summary="train all weights, from random ones",
    recommended_for="a baseline without pre-training",
    needs_model=False,
    tunes=("encoder", "bottleneck", "decoder"),
    presets=reference(1e-4),
)


class Scratch(Full):
    """Method `scratch`, for which the head is as new as all other layers."""

    name, learning_rate, head_lr_multiplier = "scratch", 3e-3, 1.0
    learning_rate_if_small = 3e-3
