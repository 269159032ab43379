"""Decoder only: a frozen encoder and a trained decoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.builtin.reference_recipe import reference
from fseft.learn.adapters.method import BaseMethod
from fseft.plugin import MethodSpec

if TYPE_CHECKING:
    from fseft.learn.networks.roles import Target

SPEC = MethodSpec(
    name="decoder-only",
    factory="fseft.builtin.methods.decoder_only:DecoderOnly",
    summary="train the decoder and the head, from the pre-trained weights",
    tunes=("decoder",),
    presets=reference(1e-4),
)


class DecoderOnly(BaseMethod):
    """Method `decoder-only`."""

    name, needs, learning_rate, head_lr_multiplier = "decoder-only", "a decoder", 3e-3, 10.0

    def wants(self, target: Target) -> bool:
        """Returns True for all layers of the decoder."""
        return target.part == "decoder"
