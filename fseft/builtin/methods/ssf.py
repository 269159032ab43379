"""SSF: a scale and a shift on the output of every layer, folded into its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.plugin import Config, MethodSpec

if TYPE_CHECKING:
    from torch import Generator, nn

    from fseft.learn.adapters.method import AdaptedNetwork
    from fseft.learn.networks.roles import Architecture, Target

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


class SSF:
    """Method `ssf`. A norm layer takes the scale and shift before it away again: there its own are trained."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def select(self, architecture: Architecture, network: nn.Module) -> list[Target]:
        """The norm layers, and the layers that none of them follows."""
        from fseft.learn.adapters.method import require_targets

        chosen = [
            target
            for target in architecture.targets(network)
            if target.part != "head"
            and (
                target.role == "norm"
                or (target.role in SHIFTED_AND_SCALED and not target.followed_by_norm)
            )
        ]
        return require_targets(chosen, "layers whose output a scale would change", "ssf")

    def apply(
        self, architecture: Architecture, network: nn.Module, *, generator: Generator
    ) -> AdaptedNetwork:
        """Put a scale on each weight and a shift on each bias; the output is unchanged until training starts."""
        from fseft.learn.adapters.adapter_layers import BiasShift, ChannelScale, add_delta
        from fseft.learn.adapters.method import AdaptedNetwork

        trained = []
        for target in self.select(architecture, network):
            if target.role == "norm":
                trained.append(target.name)
                continue
            outputs = 1 if target.role == "conv.transposed" else 0
            scale = ChannelScale(target.module.get_parameter("weight"), outputs)
            trained.append(add_delta(target, scale))
            if target.module.bias is not None:
                shift = BiasShift(target.module.get_parameter("bias"))
                trained.append(add_delta(target, shift, "bias"))
        return AdaptedNetwork.freeze_except(trained, architecture, network, learning_rate=1e-2)
