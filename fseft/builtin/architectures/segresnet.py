"""Architecture `segresnet`: MONAI's SegResNet, as in its whole-body CT bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from fseft.lazy_imports import import_lazily
from fseft.learn.networks.base_architecture import BaseArchitecture, level_of, module_count
from fseft.plugin import ArchitectureSpec, Config

if TYPE_CHECKING:
    from torch import nn

    from fseft.learn.networks.roles import PartName
    from fseft.schemas import Triple


class SegResNetConfig(Config):
    """Hyper-parameters of `segresnet`."""

    init_filters: int = Field(
        default=32,
        multiple_of=8,
        description="width at full resolution; a multiple of 8, the number of groups",
    )
    blocks_down: tuple[int, ...] = Field(
        default=(1, 2, 2, 4), description="residual blocks on each encoder level, the finest first"
    )
    blocks_up: tuple[int, ...] | None = Field(
        default=None,
        description="residual blocks on each decoder level, the coarsest first; default: ones",
    )
    dropout_prob: float | None = Field(
        default=None, ge=0, lt=1, description="dropout after the first convolution"
    )


SPEC = ArchitectureSpec(
    name="segresnet",
    factory="fseft.builtin.architectures.segresnet:SegResNet",
    summary="residual encoder, small decoder, group norm; 19 M parameters at 32 filters",
    config=SegResNetConfig,
    reference="Myronenko 2018, arXiv:1810.11654",
)


class SegResNet(BaseArchitecture):
    """Architecture `segresnet`; state dicts have the names of MONAI's class."""

    config_class = SegResNetConfig
    divisor: Triple = (8, 8, 8)
    minimum_patch: Triple = (16, 16, 16)
    head_pattern = r"conv_final\.2\.conv"
    # Blocks begin with a norm, so only their first convolution is followed by one.
    before_norm_pattern = r".*\.conv1\.conv"

    def build(self, *, in_channels: int, out_channels: int, config: SegResNetConfig) -> nn.Module:
        """Builds a network (B, in, i, j, k) -> logits (B, out, i, j, k)."""
        import_lazily("monai")
        from monai.networks.nets import SegResNet as Network

        steps = len(config.blocks_down) - 1
        self.require_divisible(2**steps)
        network: nn.Module = Network(
            3,
            config.init_filters,
            in_channels,
            out_channels,
            dropout_prob=config.dropout_prob,
            blocks_down=config.blocks_down,
            blocks_up=config.blocks_up or (1,) * steps,
        )
        return network

    def part_and_stage(self, network: nn.Module, name: str) -> tuple[PartName, int]:
        """Counts encoder levels from the finest, decoder levels from the coarsest."""
        deepest = module_count(network, "up_layers")
        if name.startswith("up_"):
            return "decoder", deepest - 1 - level_of(name)
        stage = level_of(name) if name.startswith("down_layers") else 0
        if stage == deepest:
            return "bottleneck", stage
        return ("decoder" if name.startswith("conv_final") else "encoder"), stage
