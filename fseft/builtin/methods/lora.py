"""LoRA: low-rank changes of the weights of linear, convolutional and transposed layers."""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from fseft.builtin.reference_recipe import reference
from fseft.learn.networks.roles import PartName, Role  # noqa: TC001 - pydantic reads them
from fseft.plugin import Config, MethodSpec

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from fseft.learn.adapters.adapter_layers import WeightDelta
    from fseft.learn.adapters.method import AdaptedNetwork
    from fseft.learn.networks.roles import Architecture, Target

ROLES: tuple[Role, ...] = (
    "attn.qkv",
    "attn.proj",
    "mlp.fc1",
    "mlp.fc2",
    "conv.spatial",
    "conv.pointwise",
    "conv.transposed",
)


class LoRAConfig(Config):
    """Where low-rank changes go, and how large they may be."""

    rank: int = Field(
        default=8, ge=1, description="r: rank of each change; a smaller layer has its full rank"
    )
    alpha: float = Field(default=16.0, gt=0, description="the change is scaled by alpha / r")
    rslora: bool = Field(default=False, description="scale by alpha / sqrt(r) instead")
    dora: bool = Field(
        default=False, description="train the magnitude of each output as well (DoRA)"
    )
    init: Literal["zero", "pissa"] = Field(
        default="zero",
        description="zero: B is zero; pissa: B A is the principal part of the weight",
    )
    ratio: float = Field(default=1.0, gt=0, description="learning rate of B over that of A (LoRA+)")
    head_ratio: float = Field(
        default=10.0, gt=0, description="learning rate of the head over that of A"
    )
    parts: tuple[PartName, ...] = Field(
        default=("encoder", "bottleneck"), description="parts of the network"
    )
    stages: tuple[int, ...] = Field(
        default=(), description="resolution levels, 0 the finest; empty: all"
    )
    roles: tuple[Role, ...] = Field(default=ROLES, description="roles of the layers")
    per_projection: bool = Field(
        default=True, description="queries, keys and values have a change each, not one of all"
    )


SPEC = MethodSpec(
    name="lora",
    factory="fseft.builtin.methods.lora:LoRA",
    summary="low-rank changes of frozen weights; merges exactly",
    config=LoRAConfig,
    reference="Hu et al. 2021, arXiv:2106.09685; LoRA+: Hayou et al. 2024; rsLoRA: Kalajdzievski 2023; "
    "DoRA: Liu et al. 2024; PiSSA: Meng et al. 2024",
    # Rank 4 for each of q, k and v, with a dense B, unscaled.
    presets=reference(
        1e-3, rank=12, alpha=12.0, parts=("encoder",), roles=("attn.qkv",), per_projection=False
    ),
)


class LoRA:
    """Method `lora`. Deltas act on the weight, so one class serves linear, convolution and transposed layers."""

    def __init__(self, config: LoRAConfig) -> None:
        self.config = config

    def select(self, architecture: Architecture, network: nn.Module) -> list[Target]:
        """The layers of the chosen parts, stages and roles, but for those whose weight has no effect."""
        from fseft.learn.adapters.method import require_targets

        chosen = [
            target
            for target in architecture.targets(network)
            if target.part in self.config.parts
            and target.part != "head"
            and target.role in self.config.roles
            and (not self.config.stages or target.stage in self.config.stages)
            and target.weight_has_effect
        ]
        where = f" at stage {', '.join(map(str, self.config.stages))}" if self.config.stages else ""
        kind = "" if self.config.roles == ROLES else f"{' or '.join(self.config.roles)} "
        return require_targets(
            chosen, f"{kind}layers in {' or '.join(self.config.parts)}{where}", "lora"
        )

    def apply(
        self, architecture: Architecture, network: nn.Module, *, generator: Generator
    ) -> AdaptedNetwork:
        """Put a low-rank delta on each chosen weight; the output is unchanged until training starts.

        Raises:
            FseftError: The rank is more than any of the chosen layers allows.
        """
        from fseft.learn.adapters.adapter_layers import Magnitude, add_delta
        from fseft.learn.adapters.method import AdaptedNetwork

        config = self.config
        targets = self.select(architecture, network)
        self._check_rank(targets)
        deltas, magnitudes = [], []
        for target in targets:
            weight = target.module.get_parameter("weight")
            deltas.append(add_delta(target, self._change(target, weight, generator)))
            if config.dora and not target.followed_by_norm:  # which takes a magnitude away again
                magnitude = Magnitude(weight, 1 if target.role == "conv.transposed" else 0)
                magnitudes.append(add_delta(target, magnitude))
        return AdaptedNetwork.freeze_except(
            [*deltas, *magnitudes],
            architecture,
            network,
            learning_rate=3e-3,
            head_ratio=config.head_ratio,
            rates={name: config.ratio for delta in deltas for name in _names_of_b(network, delta)},
        )

    def _change(self, target: Target, weight: Tensor, generator: Generator) -> WeightDelta:
        """The low-rank change of a weight; of a fused one, that of each projection."""
        from fseft.learn.adapters.adapter_layers import FusedQKVDelta, LowRank, PrincipalLowRank

        config = self.config
        scale = config.alpha / (sqrt(config.rank) if config.rslora else config.rank)
        kind = PrincipalLowRank if config.init == "pissa" else LowRank
        if target.role == "attn.qkv" and config.per_projection:
            return FusedQKVDelta(
                kind(block, config.rank, scale, generator) for block in weight.chunk(3)
            )
        return kind(weight, config.rank, scale, generator)

    def _check_rank(self, targets: list[Target]) -> None:
        from fseft.errors import FseftError
        from fseft.learn.adapters.adapter_layers import full_rank

        ranks = {
            target.name: full_rank(target.module.get_parameter("weight")) for target in targets
        }
        largest = max(ranks, key=ranks.__getitem__)
        if self.config.rank > ranks[largest]:
            raise FseftError(
                f"rank is {self.config.rank}, and {largest}, the largest of the chosen layers, has {ranks[largest]}",
                hint=f"Set rank to {ranks[largest]} or less.",
            )


def _names_of_b(network: nn.Module, delta: str) -> list[str]:
    """The names of the matrices B of a change."""
    return [
        f"{delta}.{name}"
        for name, _ in network.get_submodule(delta).named_parameters()
        if name.split(".")[-1] == "b"
    ]
