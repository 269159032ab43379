"""Scratch: the same network from random weights, the baseline that pre-training has to beat."""

from __future__ import annotations

from fseft.builtin.methods.full import Full
from fseft.builtin.reference_recipe import reference
from fseft.plugin import MethodSpec

SPEC = MethodSpec(
    name="scratch",
    factory="fseft.builtin.methods.scratch:Scratch",
    summary="train every weight, from random ones",
    needs_model=False,
    tunes=("encoder", "bottleneck", "decoder"),
    presets=reference(1e-4),
)


class Scratch(Full):
    """Method `scratch`. Random weights stand a higher rate than pre-trained ones, the head's as the others."""

    learning_rate = 3e-3
    head_ratio = 1.0
