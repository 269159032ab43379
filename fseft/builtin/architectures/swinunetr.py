"""SwinUNETR: MONAI's, with the patch merging that public checkpoints were trained with, or the repaired one."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from fseft.learn.networks.base_architecture import TEXT_HEAD, BaseArchitecture, level
from fseft.plugin import ArchitectureSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fseft.learn.networks.roles import PartName, Role
    from fseft.schemas import Triple

SPEC = ArchitectureSpec(
    name="swinunetr",
    factory="fseft.builtin.architectures.swinunetr:SwinUNETR",
    summary="Swin transformer encoder, convolutional decoder; 62 M parameters at a feature size of 48",
    reference="Hatamizadeh et al. 2022, arXiv:2201.01266; Tang et al. 2022, arXiv:2111.14791",
)

LEGACY_OCTANTS = (
    (0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 0), (0, 0, 1), (1, 1, 1),
)  # fmt: skip
"""Of the eight corners of a 2x2x2 block, MONAI before 1.5 took two twice and two not at all."""

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

    divisor: Triple = (32, 32, 32)
    minimum_patch: Triple = (64, 64, 64)
    classifier = r"out\.conv\.conv"
    normed = r".*\.conv[123]\.conv"
    deepest = "encoder10"

    def build(
        self,
        *,
        in_channels: int,
        out_channels: int,
        feature_size: int = 48,
        patch_merging: Literal["legacy", "fixed"] = "legacy",
        text_classes: int = 0,
        **more: Any,
    ) -> nn.Module:
        """A network (B, in, i, j, k) -> (B, out, i, j, k).

        Args:
            in_channels: Of the image.
            out_channels: Of the head.
            feature_size: Width; a multiple of 12.
            patch_merging: `legacy` for weights trained with MONAI before 1.5 (all public ones), `fixed` for later
                ones. Names and shapes are the same, the function is not.
            text_classes: Classes of a head driven by texts beside the plain one; for universal models.
            more: `depths`, `num_heads`, `window_size`, `use_v2`, `use_checkpoint` and others of MONAI's class.
        """
        from monai.networks.nets import SwinUNETR as Network

        downsample = legacy_merging() if patch_merging == "legacy" else "mergingv2"
        network: nn.Module = Network(
            in_channels, out_channels, feature_size=feature_size, downsample=downsample, **more
        )
        if text_classes:
            from fseft.learn.networks.text_head import TextHead

            network.add_module(TEXT_HEAD, TextHead(feature_size, 16 * feature_size, text_classes))
        return network

    def role(self, name: str, module: nn.Module) -> Role | None:  # noqa: ARG002 - the name says it
        """Every layer with parameters, the transformer blocks, and the owners of the relative position biases."""
        return next((role for pattern, role in _ROLES if re.fullmatch(pattern, name)), None)

    def place(self, network: nn.Module, name: str) -> tuple[PartName, int]:  # noqa: ARG002 - always five levels
        """Level n has 1 / 2^n of the resolution."""
        if name.startswith("swinViT"):
            layers = re.match(r"swinViT\.layers(\d)", name)
            return "encoder", int(layers[1]) if layers else 0
        if name.startswith("encoder10"):
            return "bottleneck", 5
        return ("encoder" if name.startswith("encoder") else "decoder"), level(name) - 1


@lru_cache(maxsize=1)
def legacy_merging() -> type[nn.Module]:
    """The patch merging of MONAI 0.9 to 1.4 (Project-MONAI/MONAI issue 8284), made when MONAI is there."""
    import torch
    from monai.networks.nets.swin_unetr import PatchMergingV2
    from torch.nn import functional as F

    class LegacyPatchMerging(PatchMergingV2):  # type: ignore[misc]
        """(B, i, j, k, C) -> (B, i/2, j/2, k/2, 2C), with the octants as they were."""

        def forward(self, x: Tensor) -> Tensor:
            i, j, k = x.shape[1:4]
            x = F.pad(x, (0, 0, 0, k % 2, 0, j % 2, 0, i % 2))
            octants = [x[:, a::2, b::2, c::2] for a, b, c in LEGACY_OCTANTS]
            merged: Tensor = self.reduction(self.norm(torch.cat(octants, -1)))
            return merged

    return LegacyPatchMerging
