"""IA3: scales on keys, values and the inputs of the layers that mix channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.plugin import Config, MethodSpec

if TYPE_CHECKING:
    from torch import Generator, nn

    from fseft.learn.adapters.method import AdaptedNetwork
    from fseft.learn.networks.roles import Architecture, Target

SPEC = MethodSpec(
    name="ia3",
    factory="fseft.builtin.methods.ia3:IA3",
    summary="scale keys, values and the inputs of feed-forward and convolutional layers; merges exactly",
    reference="Liu et al. 2022, arXiv:2205.05638",
)

SCALED_AT_INPUT = ("mlp.fc2", "conv.spatial", "conv.pointwise", "conv.transposed")


class IA3:
    """Method `ia3`. Convolutions are scaled at their input: the norm layer after them undoes a scale of the output.

    So it does with the scale of a lone input channel, which is left out.
    """

    def __init__(self, config: Config) -> None:
        self.config = config

    def select(self, architecture: Architecture, network: nn.Module) -> list[Target]:
        """Attention, feed-forward and convolutional layers of encoder and bottleneck."""
        from fseft.learn.adapters.method import require_targets

        chosen = [
            target
            for target in architecture.targets(network)
            if target.part in ("encoder", "bottleneck")
            and target.role in ("attn.qkv", *SCALED_AT_INPUT)
            and not (
                target.followed_by_norm and target.module.get_parameter("weight").shape[1] == 1
            )
        ]
        return require_targets(chosen, "attention or convolutional layers in the encoder", "ia3")

    def apply(
        self, architecture: Architecture, network: nn.Module, *, generator: Generator
    ) -> AdaptedNetwork:
        """Put scales of one on the chosen weights; the output is unchanged until training starts."""
        from fseft.learn.adapters.adapter_layers import ChannelScale, add_delta
        from fseft.learn.adapters.method import AdaptedNetwork

        scales = []
        for target in self.select(architecture, network):
            weight = target.module.get_parameter("weight")
            if target.role == "attn.qkv":  # rows of queries, keys, values
                scale = ChannelScale(weight, 0, first=len(weight) // 3)
            else:
                scale = ChannelScale(weight, 0 if target.role == "conv.transposed" else 1)
            scales.append(add_delta(target, scale))
            if target.role == "attn.qkv" and target.module.bias is not None:
                scales.append(add_delta(target, scale, "bias"))
        return AdaptedNetwork.freeze_except(scales, architecture, network, learning_rate=1e-2)
