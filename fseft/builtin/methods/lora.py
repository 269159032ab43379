"""LoRA: low-rank deltas on the weights of linear and (transposed) convolutional layers."""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from fseft.builtin.reference_recipe import reference
from fseft.errors import FseftError
from fseft.learn.adapters.method import BaseMethod
from fseft.learn.networks.roles import PartName, Role  # noqa: TC001 - pydantic reads them
from fseft.plugin import Config, MethodSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Generator, Tensor, nn

    from fseft.learn.adapters.adapted_network import AdaptedNetwork
    from fseft.learn.adapters.adapter_layers import WeightDelta
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
    """Layers, rank and learning rates of the low-rank deltas."""

    former_names: ClassVar = {
        "ratio": "lora_plus_ratio",
        "head_ratio": "head_lr_ratio",
        "per_projection": "split_qkv",
    }

    rank: int = Field(
        default=8,
        ge=1,
        description="r: rank of each delta; limited by the full rank of a small layer",
    )
    alpha: float = Field(default=16.0, gt=0, description="the delta is scaled by alpha / r")
    rslora: bool = Field(default=False, description="scale by alpha / sqrt(r) instead")
    dora: bool = Field(
        default=False, description="train the magnitude of each output as well (DoRA)"
    )
    init: Literal["zero", "pissa"] = Field(
        default="zero",
        description="zero: B is zero; pissa: B A is the principal part of the weight",
    )
    lora_plus_ratio: float = Field(
        default=1.0, gt=0, description="learning rate of B divided by that of A (LoRA+)"
    )
    head_lr_ratio: float = Field(
        default=10.0, gt=0, description="learning rate of the head divided by that of A"
    )
    parts: tuple[PartName, ...] = Field(
        default=("encoder", "bottleneck"), description="parts of the network"
    )
    stages: tuple[int, ...] = Field(
        default=(), description="resolution levels, 0 the finest; empty: all"
    )
    roles: tuple[Role, ...] = Field(default=ROLES, description="roles of the layers")
    split_qkv: bool = Field(
        default=True, description="separate deltas for queries, keys and values, not a joint one"
    )


SPEC = MethodSpec(
    name="lora",
    factory="fseft.builtin.methods.lora:LoRA",
    summary="low-rank deltas on frozen weights; merges exactly",
    recommended_for="new structures, on a CPU or a small GPU",
    config=LoRAConfig,
    reference="Hu et al. 2021, arXiv:2106.09685; LoRA+: Hayou et al. 2024; "
    "rsLoRA: Kalajdzievski 2023; DoRA: Liu et al. 2024; PiSSA: Meng et al. 2024",
    # Rank 4 for each of q, k and v, with a dense B, unscaled.
    presets=reference(
        1e-3, rank=12, alpha=12.0, parts=("encoder",), roles=("attn.qkv",), split_qkv=False
    ),
)


class LoRA(BaseMethod):
    """Method `lora`; the output is unchanged until training starts.

    Deltas act on the weight, so that one class serves linear, convolutional and transposed layers.
    """

    name, learning_rate = "lora", 1e-2
    config: LoRAConfig

    def __init__(self, config: LoRAConfig) -> None:
        super().__init__(config)
        self.needs = _describe_layers(config)
        self.head_lr_multiplier = config.head_lr_ratio

    def wants(self, target: Target) -> bool:
        """Returns True for layers of the selected parts, stages and roles."""
        config = self.config
        return (
            target.part in config.parts
            and target.part != "head"
            and target.role in config.roles
            and (not config.stages or target.stage in config.stages)
            and target.weight_has_effect
        )

    def apply(
        self, architecture: Architecture, network: nn.Module, *, generator: Generator
    ) -> AdaptedNetwork:
        """Adds a low-rank delta to each selected weight.

        Raises:
            FseftError: The rank is larger than any of the selected layers allows.
        """
        self._check_rank(self.select(architecture, network))
        return super().apply(architecture, network, generator=generator)

    def attach(self, target: Target, generator: Generator) -> list[str]:
        """Adds a low-rank delta; for DoRA a magnitude too, unless a norm layer cancels it."""
        from fseft.learn.adapters.adapter_layers import Magnitude, add_delta

        weight = target.module.get_parameter("weight")
        trained = [add_delta(target, self._delta(target, weight, generator))]
        if self.config.dora and not target.followed_by_norm:
            magnitude = Magnitude(weight, 1 if target.role == "conv.transposed" else 0)
            trained.append(add_delta(target, magnitude))
        return trained

    def lr_multipliers(self, network: nn.Module) -> Mapping[str, float]:
        """Returns the multiple for the matrices B (LoRA+)."""
        from fseft.learn.adapters.adapter_layers import LowRank

        modules = network.named_modules()
        deltas = [name for name, module in modules if isinstance(module, LowRank)]
        return {f"{delta}.b": self.config.lora_plus_ratio for delta in deltas}

    def _delta(self, target: Target, weight: Tensor, generator: Generator) -> WeightDelta:
        """Returns the low-rank delta of a weight, or one per projection of a fused qkv weight."""
        from fseft.learn.adapters.adapter_layers import FusedQKVDelta, LowRank, PrincipalLowRank

        rank, alpha = self.config.rank, self.config.alpha
        scale = alpha / (sqrt(rank) if self.config.rslora else rank)
        kind = PrincipalLowRank if self.config.init == "pissa" else LowRank
        if target.role == "attn.qkv" and self.config.split_qkv:
            return FusedQKVDelta(kind(block, rank, scale, generator) for block in weight.chunk(3))
        return kind(weight, rank, scale, generator)

    def _check_rank(self, targets: list[Target]) -> None:
        """Requires that some layer can have a delta of the configured rank."""
        from fseft.learn.adapters.adapter_layers import full_rank

        ranks = {
            target.name: full_rank(target.module.get_parameter("weight")) for target in targets
        }
        largest = max(ranks, key=ranks.__getitem__)
        if self.config.rank > ranks[largest]:
            raise FseftError(
                f"rank is {self.config.rank}, and {largest}, the largest of the selected layers, "
                f"has {ranks[largest]}",
                hint=f"Set rank to {ranks[largest]} or less.",
            )


def _describe_layers(config: LoRAConfig) -> str:
    """Returns the selected layers in words: `attn.qkv layers in encoder at stage 1`."""
    words = f"layers in {' or '.join(config.parts)}"
    if config.roles != ROLES:
        words = f"{' or '.join(config.roles)} {words}"
    if config.stages:
        words += f" at stage {', '.join(map(str, config.stages))}"
    return words
