"""Architecture `vista3d`: the automatic branch of VISTA3D, with one head row per class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from fseft.lazy_imports import import_lazily
from fseft.learn.networks.base_architecture import BaseArchitecture, level_of, module_count
from fseft.plugin import ArchitectureSpec, Config

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

    from fseft.learn.networks.roles import PartName
    from fseft.schemas import Triple

BRANCH = (
    "image_encoder.encoder.",
    "image_encoder.up_layers_auto.",
    "class_head.image_post_mapping.",
)
"""Prefixes of the tensors of the automatic branch in public checkpoints."""


class VISTA3DConfig(Config):
    """Hyper-parameters of `vista3d`."""

    encoder_embed_dim: int = Field(default=48, ge=1, description="width at full resolution")
    blocks_down: tuple[int, ...] = Field(
        default=(1, 2, 2, 4, 4),
        description="residual blocks on each encoder level, the finest first; each decoder level "
        "has one",
    )


SPEC = ArchitectureSpec(
    name="vista3d",
    factory="fseft.builtin.architectures.vista3d:VISTA3D",
    summary="residual encoder, small decoder, instance norm: the automatic branch of VISTA3D, "
    "196 M parameters",
    config=VISTA3DConfig,
    reference="He et al. 2024, arXiv:2406.05285",
)


class VISTA3D(BaseArchitecture):
    """Architecture `vista3d`; all layers except the head have the names of public checkpoints."""

    config_class = VISTA3DConfig
    divisor: Triple = (16, 16, 16)
    minimum_patch: Triple = (32, 32, 32)
    before_norm_pattern = r"image_encoder\..*\.conv1|class_head\..*\.conv[12]\.conv"

    def build(self, *, in_channels: int, out_channels: int, config: VISTA3DConfig) -> nn.Module:
        """Builds a network (B, in, i, j, k) -> logits (B, out, i, j, k)."""
        import_lazily("monai")
        from fseft.builtin.architectures.networks.vista3d import VISTA3DNetwork

        self.require_divisible(2 ** (len(config.blocks_down) - 1))
        width, blocks = config.encoder_embed_dim, config.blocks_down
        return VISTA3DNetwork(in_channels, out_channels, width, blocks)

    def part_and_stage(self, network: nn.Module, name: str) -> tuple[PartName, int]:
        """Counts encoder levels from the finest, decoder levels from the coarsest."""
        deepest = module_count(network, "image_encoder.up_layers_auto")
        inner = name.removeprefix("image_encoder.")
        if inner.startswith("up_layers_auto"):
            return "decoder", deepest - 1 - level_of(inner)
        if inner.startswith("class_head"):
            return "decoder", 0
        stage = 0 if inner == "encoder.conv_init" else level_of(inner)
        return ("bottleneck" if stage == deepest else "encoder"), stage


def automatic_branch(tensors: Mapping[str, Tensor], classes: Sequence[int]) -> dict[str, Tensor]:
    """Converts the tensors of MONAI's class to those of this architecture.

    The logits of a class are linear in the image features, with weights that a small network
    computes from the embedding of the class: these weights become the rows of the head.

    Args:
        tensors: A public state dict, of `monai.networks.nets.vista3d132`.
        classes: VISTA3D's class indices, one for each row of the head.

    Returns:
        Tensors by the names of this architecture.
    """
    import torch
    from torch.nn import functional as F

    def linear(x: Tensor, layer: int) -> Tensor:
        name = f"class_head.mlp.{layer}"
        return F.linear(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"])

    embeddings = tensors["class_head.class_embeddings.weight"][list(classes), None]
    rows = linear(F.gelu(F.instance_norm(linear(embeddings, 0))), 3)
    return {
        **{name: tensor for name, tensor in tensors.items() if name.startswith(BRANCH)},
        "head.weight": rows[:, 0, :, None, None, None],
        "head.bias": torch.zeros(len(rows)),
    }
