"""SSF: a scale and a shift of the output of every layer, merged into its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.learn.adapters.method import BaseMethod
from fseft.plugin import MethodSpec

if TYPE_CHECKING:
    from torch import Generator

    from fseft.learn.networks.roles import Target

SPEC = MethodSpec(
    name="ssf",
    factory="fseft.builtin.methods.ssf:SSF",
    summary="scale and shift the output of every layer; merges exactly",
    reference="Lian et al. 2022, arXiv:2210.08823",
)

SHIFTED_AND_SCALED = (
    "patch_embed",
    "attn.qkv",
    "attn.proj",
    "mlp.fc1",
    "mlp.fc2",
    "downsample",
    "conv.spatial",
    "conv.pointwise",
    "conv.transposed",
)


class SSF(BaseMethod):
    """Method `ssf`; the output is unchanged until training starts.

    A norm layer cancels the scale and shift of the layer before it, so that its own are trained
    instead.
    """

    name, needs = "ssf", "layers whose output a scale would change"
    learning_rate = 3e-2

    def wants(self, target: Target) -> bool:
        """Returns True for norm layers and for the layers without one after them."""
        if target.part == "head":
            return False
        scaled = target.role in SHIFTED_AND_SCALED and not target.followed_by_norm
        return scaled or target.role == "norm"

    def attach(self, target: Target, generator: Generator) -> list[str]:  # noqa: ARG002
        """Adds a scale to the weight and a shift to the bias; trains a norm layer itself."""
        from fseft.learn.adapters.adapter_layers import BiasShift, ChannelScale, add_delta

        if target.role == "norm":
            return [target.name]
        outputs = 1 if target.role == "conv.transposed" else 0
        scale = ChannelScale(target.module.get_parameter("weight"), outputs)
        trained = [add_delta(target, scale)]
        if target.module.bias is not None:
            shift = BiasShift(target.module.get_parameter("bias"))
            trained.append(add_delta(target, shift, "bias"))
        return trained
