"""Decoder only: a frozen encoder, and a decoder that is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.builtin.reference_recipe import reference
from fseft.plugin import Config, MethodSpec

if TYPE_CHECKING:
    from torch import Generator, nn

    from fseft.learn.adapters.method import AdaptedNetwork
    from fseft.learn.networks.roles import Architecture, Target

SPEC = MethodSpec(
    name="decoder-only",
    factory="fseft.builtin.methods.decoder_only:DecoderOnly",
    summary="train the decoder and the head, from the pre-trained weights",
    tunes=("decoder",),
    presets=reference(1e-4),
)


class DecoderOnly:
    """Method `decoder-only`."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def select(self, architecture: Architecture, network: nn.Module) -> list[Target]:
        """The decoder."""
        from fseft.learn.adapters.method import require_targets

        decoder = [target for target in architecture.targets(network) if target.part == "decoder"]
        return require_targets(decoder, "a decoder", "decoder-only")

    def apply(
        self, architecture: Architecture, network: nn.Module, *, generator: Generator
    ) -> AdaptedNetwork:
        """Freeze all but the decoder and the head."""
        from fseft.learn.adapters.method import AdaptedNetwork

        decoder = [target.name for target in self.select(architecture, network)]
        return AdaptedNetwork.freeze_except(
            decoder, architecture, network, learning_rate=1e-3, head_ratio=10.0
        )
