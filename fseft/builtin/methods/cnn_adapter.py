"""CNN adapter: a pointwise convolution parallel to each spatial one, merged into its kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.builtin.reference_recipe import reference
from fseft.learn.adapters.method import BaseMethod
from fseft.plugin import MethodSpec

if TYPE_CHECKING:
    from torch import Generator

    from fseft.learn.networks.roles import Target

SPEC = MethodSpec(
    name="cnn-adapter",
    factory="fseft.builtin.methods.cnn_adapter:CNNAdapter",
    summary="train a pointwise convolution parallel to each spatial one of the encoder; merges "
    "exactly",
    reference="Rebuffi et al. 2018, arXiv:1803.10082 (residual adapters in parallel)",
    presets=reference(1e-2),
)


class CNNAdapter(BaseMethod):
    """Method `cnn-adapter`; the output is unchanged until training starts."""

    name, needs = "cnn-adapter", "spatial convolutions in the encoder"
    learning_rate, head_lr_multiplier = 3e-3, 10.0

    def wants(self, target: Target) -> bool:
        """Returns True for encoder and bottleneck convolutions with an odd, centred kernel."""
        if target.role != "conv.spatial" or target.part not in ("encoder", "bottleneck"):
            return False
        from fseft.learn.adapters.adapter_layers import CentreTapDelta

        return CentreTapDelta.fits(target.module)  # type: ignore[arg-type]

    def attach(self, target: Target, generator: Generator) -> list[str]:  # noqa: ARG002
        """Adds a pointwise kernel to the centre of the convolution's kernel."""
        from fseft.learn.adapters.adapter_layers import CentreTapDelta, add_delta

        return [add_delta(target, CentreTapDelta(target.module.get_parameter("weight")))]
