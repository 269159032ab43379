"""CNN adapter: a pointwise convolution beside each spatial one, folded into its kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.builtin.reference_recipe import reference
from fseft.plugin import Config, MethodSpec

if TYPE_CHECKING:
    from torch import Generator, nn

    from fseft.learn.adapters.method import AdaptedNetwork
    from fseft.learn.networks.roles import Architecture, Target

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
        from fseft.learn.adapters.adapter_layers import CentreTapDelta
        from fseft.learn.adapters.method import require_targets

        chosen = [
            target
            for target in architecture.targets(network)
            if target.role == "conv.spatial"
            and target.part in ("encoder", "bottleneck")
            and CentreTapDelta.fits(target.module)  # type: ignore[arg-type]
        ]
        return require_targets(chosen, "spatial convolutions in the encoder", "cnn-adapter")

    def apply(
        self, architecture: Architecture, network: nn.Module, *, generator: Generator
    ) -> AdaptedNetwork:
        """Put a pointwise change on each kernel; the output is unchanged until training starts."""
        from fseft.learn.adapters.adapter_layers import CentreTapDelta, add_delta
        from fseft.learn.adapters.method import AdaptedNetwork

        targets = self.select(architecture, network)
        deltas = [
            add_delta(target, CentreTapDelta(target.module.get_parameter("weight")))
            for target in targets
        ]
        return AdaptedNetwork.freeze_except(
            deltas, architecture, network, learning_rate=1e-3, head_ratio=10.0
        )
