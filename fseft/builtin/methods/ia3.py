"""IA3: scales on keys, values and the inputs of the layers that mix channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.learn.adapters.method import BaseMethod
from fseft.plugin import MethodSpec

if TYPE_CHECKING:
    from torch import Generator

    from fseft.learn.networks.roles import Target

SPEC = MethodSpec(
    name="ia3",
    factory="fseft.builtin.methods.ia3:IA3",
    summary="scale keys, values and the inputs of feed-forward and convolutional layers; merges "
    "exactly",
    reference="Liu et al. 2022, arXiv:2205.05638",
)

SCALED_AT_INPUT = ("mlp.fc2", "conv.spatial", "conv.pointwise", "conv.transposed")


class IA3(BaseMethod):
    """Method `ia3`; the scales are 1 until training starts.

    Convolutions are scaled at their input, since a norm layer after them cancels a scale of the
    output. It also cancels the scale of a single input channel, which is therefore not trained.
    """

    name, needs = "ia3", "attention or convolutional layers in the encoder"
    learning_rate = 3e-2

    def wants(self, target: Target) -> bool:
        """Returns True for attention, feed-forward and convolutional layers before the decoder."""
        if target.part not in ("encoder", "bottleneck"):
            return False
        if target.role not in ("attn.qkv", *SCALED_AT_INPUT):
            return False
        inputs = target.module.get_parameter("weight").shape[1]
        return not (target.followed_by_norm and inputs == 1)

    def attach(self, target: Target, generator: Generator) -> list[str]:  # noqa: ARG002
        """Adds scales to the keys and values, or to the input channels of other layers."""
        from fseft.learn.adapters.adapter_layers import ChannelScale, add_delta

        weight = target.module.get_parameter("weight")
        if target.role != "attn.qkv":
            inputs = 0 if target.role == "conv.transposed" else 1
            return [add_delta(target, ChannelScale(weight, inputs))]
        scale = ChannelScale(weight, 0, first=len(weight) // 3)  # rows: queries, keys, values
        tensors = ["weight", "bias"] if target.module.bias is not None else ["weight"]
        return [add_delta(target, scale, tensor) for tensor in tensors]
