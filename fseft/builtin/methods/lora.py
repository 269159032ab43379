"""LoRA: low-rank changes of the weights of linear, convolutional and transposed layers."""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING

from pydantic import Field

from fseft.learn.roles import PartName, Role  # noqa: TC001 - pydantic reads the annotations
from fseft.plugin import Config, MethodSpec

if TYPE_CHECKING:
    from torch import Generator, nn

    from fseft.learn.method import Adapted
    from fseft.learn.roles import Architecture, Target

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

    rank: int = Field(default=8, ge=1, description="r: rank of each change")
    alpha: float = Field(default=16.0, gt=0, description="the change is scaled by alpha / r")
    rslora: bool = Field(default=False, description="scale by alpha / sqrt(r) instead")
    ratio: float = Field(default=1.0, gt=0, description="learning rate of B over that of A (LoRA+)")
    head_ratio: float = Field(default=10.0, gt=0, description="learning rate of the head over that of A")
    parts: tuple[PartName, ...] = Field(default=("encoder", "bottleneck"), description="parts of the network")
    stages: tuple[int, ...] = Field(default=(), description="resolution levels, 0 the finest; empty: all")
    roles: tuple[Role, ...] = Field(default=ROLES, description="roles of the layers")


SPEC = MethodSpec(
    name="lora",
    factory="fseft.builtin.methods.lora:LoRA",
    summary="low-rank changes of frozen weights; merges exactly",
    config=LoRAConfig,
    reference="Hu et al. 2021, arXiv:2106.09685; LoRA+: Hayou et al. 2024; rsLoRA: Kalajdzievski 2023",
)


class LoRA:
    """Method `lora`. Deltas act on the weight, so one class serves linear, convolution and transposed layers."""

    def __init__(self, config: LoRAConfig) -> None:
        self.config = config

    def select(self, architecture: Architecture, network: nn.Module) -> list[Target]:
        """The layers of the chosen parts, stages and roles."""
        from fseft.learn.method import need

        chosen = [
            target
            for target in architecture.targets(network)
            if target.part in self.config.parts
            and target.part != "head"
            and target.role in self.config.roles
            and (not self.config.stages or target.stage in self.config.stages)
        ]
        where = f" at stage {', '.join(map(str, self.config.stages))}" if self.config.stages else ""
        kind = "" if self.config.roles == ROLES else f"{' or '.join(self.config.roles)} "
        return need(chosen, f"{kind}layers in {' or '.join(self.config.parts)}{where}", "lora")

    def apply(self, architecture: Architecture, network: nn.Module, *, generator: Generator) -> Adapted:
        """Put a low-rank delta on each chosen weight; the output is unchanged until training starts."""
        from fseft.learn.deltas import LowRank, add_delta
        from fseft.learn.method import Adapted

        config = self.config
        scale = config.alpha / (sqrt(config.rank) if config.rslora else config.rank)
        deltas = []
        for target in self.select(architecture, network):
            low_rank = LowRank(target.module.get_parameter("weight"), config.rank, scale, generator)
            deltas.append(add_delta(target, low_rank))
        rates = {f"{delta}.b": config.ratio for delta in deltas}
        return Adapted.frozen_but(
            deltas, architecture, network, learning_rate=1e-3, head_ratio=config.head_ratio, rates=rates
        )
