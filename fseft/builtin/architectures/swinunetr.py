"""Architecture `swinunetr`: MONAI's SwinUNETR, with the legacy or the fixed patch merging."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from fseft.lazy_imports import import_lazily
from fseft.learn.networks.base_architecture import TEXT_HEAD, BaseArchitecture, level_of
from fseft.plugin import ArchitectureSpec, Config
from fseft.schemas import Triple  # noqa: TC001 - pydantic reads it

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fseft.learn.networks.roles import PartName, Role


class SwinUNETRConfig(Config):
    """Hyper-parameters of `swinunetr`, named as in MONAI's class."""

    feature_size: int = Field(default=48, multiple_of=12, description="width; a multiple of 12")
    patch_merging: Literal["legacy", "fixed"] = Field(
        default="legacy",
        description="legacy: weights trained with MONAI before 1.5 (all public ones); fixed: later "
        "ones. Names and shapes are the same, the function is not",
    )
    depths: tuple[int, int, int, int] = Field(
        default=(2, 2, 2, 2), description="transformer blocks in each stage"
    )
    num_heads: tuple[int, int, int, int] = Field(
        default=(3, 6, 12, 24), description="attention heads in each stage"
    )
    window_size: int | Triple = Field(default=7, description="window of the attention, in tokens")
    qkv_bias: bool = Field(default=True, description="bias for queries, keys and values")
    mlp_ratio: float = Field(default=4.0, gt=0, description="hidden width of the MLPs over theirs")
    norm_name: str | tuple[str, dict[str, Any]] = Field(
        default="instance", description="norm of the convolutional blocks"
    )
    drop_rate: float = Field(default=0.0, ge=0, lt=1, description="dropout")
    attn_drop_rate: float = Field(default=0.0, ge=0, lt=1, description="dropout of the attention")
    dropout_path_rate: float = Field(default=0.0, ge=0, lt=1, description="stochastic depth")
    normalize: bool = Field(default=True, description="normalise the output of each stage")
    patch_norm: bool = Field(default=False, description="normalise the patch embedding")
    use_checkpoint: bool = Field(default=False, description="activation checkpointing")
    use_v2: bool = Field(
        default=False, description="SwinUNETR v2: a residual convolution before each stage"
    )
    use_flash_attention: bool = Field(default=False, description="fused attention in inference")
    text_classes: int = Field(
        default=0,
        ge=0,
        description="classes of an additional text-driven head (universal models); 0: no such head",
    )


OWN_FIELDS = {"patch_merging", "text_classes"}
"""Hyper-parameters that MONAI's class does not have."""

SPEC = ArchitectureSpec(
    name="swinunetr",
    factory="fseft.builtin.architectures.swinunetr:SwinUNETR",
    summary="Swin transformer encoder, convolutional decoder; 62 M parameters",
    config=SwinUNETRConfig,
    reference="Hatamizadeh et al. 2022, arXiv:2201.01266; Tang et al. 2022, arXiv:2111.14791",
)

LEGACY_OCTANTS = (
    (0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 0), (0, 0, 1), (1, 1, 1),
)  # fmt: skip
"""Corners (i, j, k) of a 2x2x2 block as MONAI before 1.5 merged them: two twice, two never."""

_ROLES: tuple[tuple[str, Role], ...] = (
    (r"swinViT\.patch_embed\.proj", "patch_embed"),
    (r"swinViT\.layers\d\.0\.blocks\.\d+", "block"),
    (r".*\.attn\.qkv", "attn.qkv"),
    (r".*\.attn\.proj", "attn.proj"),
    (r".*\.mlp", "mlp"),
    (r".*\.mlp\.linear1", "mlp.fc1"),
    (r".*\.mlp\.linear2", "mlp.fc2"),
    (r".*\.attn", "pos_bias"),
    (r".*\.downsample\.reduction", "downsample"),
    (r".*\.(norm\d?)", "norm"),
    (r".*\.transp_conv\.conv", "conv.transposed"),
    (r".*\.conv[12]\.conv", "conv.spatial"),
    (r".*\.conv3\.conv", "conv.pointwise"),
)


class SwinUNETR(BaseArchitecture):
    """Architecture `swinunetr`; state dicts have the names of MONAI's class."""

    config_class = SwinUNETRConfig
    divisor: Triple = (32, 32, 32)
    minimum_patch: Triple = (64, 64, 64)
    head_pattern = r"out\.conv\.conv"
    before_norm_pattern = r".*\.conv[123]\.conv"
    deepest_module = "encoder10"

    def build(self, *, in_channels: int, out_channels: int, config: SwinUNETRConfig) -> nn.Module:
        """Builds a network (B, in, i, j, k) -> logits (B, out, i, j, k)."""
        import_lazily("monai")
        from monai.networks.nets import SwinUNETR as Network

        downsample = legacy_merging() if config.patch_merging == "legacy" else "mergingv2"
        settings = config.model_dump(exclude=OWN_FIELDS)
        network: nn.Module = Network(in_channels, out_channels, downsample=downsample, **settings)
        if config.text_classes:
            from fseft.learn.networks.text_head import TextHead

            width = config.feature_size
            network.add_module(TEXT_HEAD, TextHead(width, 16 * width, config.text_classes))
        return network

    def role(self, name: str, module: nn.Module) -> Role | None:
        """Returns the role by name.

        Transformer blocks and the owners of relative position biases have one, too.
        """
        del module
        return next((role for pattern, role in _ROLES if re.fullmatch(pattern, name)), None)

    def part_and_stage(self, network: nn.Module, name: str) -> tuple[PartName, int]:
        """Returns one of six levels: level n has 1 / 2^n of the resolution."""
        del network
        if name.startswith("swinViT"):
            layers = re.match(r"swinViT\.layers(\d)", name)
            return "encoder", int(layers[1]) if layers else 0
        if name.startswith("encoder10"):
            return "bottleneck", 5
        return ("encoder" if name.startswith("encoder") else "decoder"), level_of(name) - 1


@lru_cache(maxsize=1)
def legacy_merging() -> type[nn.Module]:
    """Returns the patch merging of MONAI 0.9 to 1.4 (Project-MONAI/MONAI issue 8284).

    The class is defined inside the function so that importing this module imports no MONAI.
    """
    import torch

    import_lazily("monai")
    from monai.networks.nets.swin_unetr import PatchMergingV2
    from torch.nn import functional as F

    class LegacyPatchMerging(PatchMergingV2):  # type: ignore[misc]
        """Merges the corners of 2x2x2 blocks: (B, i, j, k, C) -> (B, i/2, j/2, k/2, 2C)."""

        def forward(self, x: Tensor) -> Tensor:
            i, j, k = (side % 2 for side in x.shape[1:4])
            x = F.pad(x, (0, 0, 0, k, 0, j, 0, i))
            corners = []
            for a, b, c in LEGACY_OCTANTS:
                corners.append(x[:, a::2, b::2, c::2])
            merged: Tensor = self.reduction(self.norm(torch.cat(corners, -1)))
            return merged

    return LegacyPatchMerging
