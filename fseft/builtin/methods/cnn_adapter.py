"""CNN adapter: a pointwise convolution beside each spatial one, folded into its kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.builtin.reference import reference
from fseft.plugin import Config, MethodSpec

if TYPE_CHECKING:
    from torch import Generator, nn

    from fseft.learn.method import Adapted
    from fseft.learn.roles import Architecture, Target

SPEC = MethodSpec(
    name="cnn-adapter",
    factory="fseft.builtin.methods.cnn_adapter:CNNAdapter",
    summary="train a pointwise convolution beside each spatial one of the encoder; merges exactly",
    reference="Rebuffi et al. 2018, arXiv:1803.10082 (residual adapters in parallel)",
    presets=reference(1e-2),
)


class CNNAdapter:
    """Method `cnn-adapter`."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def select(self, architecture: Architecture, network: nn.Module) -> list[Target]:
        """The spatial convolutions of encoder and bottleneck that a pointwise one can stand beside."""
        from fseft.learn.deltas import Centre
        from fseft.learn.method import need

        chosen = [
            target
            for target in architecture.targets(network)
            if target.role == "conv.spatial" and target.part in ("encoder", "bottleneck") and Centre.fits(target.module)  # type: ignore[arg-type]
        ]
        return need(chosen, "spatial convolutions in the encoder", "cnn-adapter")

    def apply(self, architecture: Architecture, network: nn.Module, *, generator: Generator) -> Adapted:  # noqa: ARG002
        """Put a pointwise change on each kernel; the output is unchanged until training starts."""
        from fseft.learn.deltas import Centre, add_delta
        from fseft.learn.method import Adapted

        targets = self.select(architecture, network)
        deltas = [add_delta(target, Centre(target.module.get_parameter("weight"))) for target in targets]
        return Adapted.frozen_but(deltas, architecture, network, learning_rate=1e-3, head_ratio=10.0)
