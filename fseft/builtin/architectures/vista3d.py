"""VISTA3D: its automatic branch, with the prompts of known classes turned into rows of a pointwise head."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.learn.networks.base_architecture import BaseArchitecture, depth, level
from fseft.plugin import ArchitectureSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

    from fseft.learn.networks.roles import PartName
    from fseft.schemas import Triple

SPEC = ArchitectureSpec(
    name="vista3d",
    factory="fseft.builtin.architectures.vista3d:VISTA3D",
    summary="residual encoder, small decoder, instance norm: the automatic branch of VISTA3D, 196 M parameters",
    reference="He et al. 2024, arXiv:2406.05285",
)


class VISTA3D(BaseArchitecture):
    """Architecture `vista3d`; all but the head has the names of public state dicts."""

    divisor: Triple = (16, 16, 16)
    minimum_patch: Triple = (32, 32, 32)
    normed = r"image_encoder\..*\.conv1|class_head\..*\.conv[12]\.conv"

    def build(
        self,
        *,
        in_channels: int,
        out_channels: int,
        encoder_embed_dim: int = 48,
        blocks_down: tuple[int, ...] = (1, 2, 2, 4, 4),
    ) -> nn.Module:
        """A network (B, in, i, j, k) -> (B, out, i, j, k).

        Args:
            in_channels: Of the image.
            out_channels: Of the head.
            encoder_embed_dim: Width at full resolution.
            blocks_down: Residual blocks on each level, the finest first; the decoder has one on each.
        """
        from fseft.builtin.architectures.vista3d_network import VISTA3DNetwork

        self.refuse_deeper(2 ** (len(blocks_down) - 1))
        return VISTA3DNetwork(in_channels, out_channels, encoder_embed_dim, blocks_down)

    def place(self, network: nn.Module, name: str) -> tuple[PartName, int]:
        """Encoder levels count from the finest, decoder levels from the coarsest."""
        deepest = depth(network, "image_encoder.up_layers_auto")
        inner = name.removeprefix("image_encoder.")
        if inner.startswith("up_layers_auto"):
            return "decoder", deepest - 1 - level(inner)
        if inner.startswith("class_head"):
            return "decoder", 0
        stage = 0 if inner == "encoder.conv_init" else level(inner)
        return ("bottleneck" if stage == deepest else "encoder"), stage


def automatic_branch(tensors: Mapping[str, Tensor], classes: Sequence[int]) -> dict[str, Tensor]:
    """The tensors of this architecture from those of MONAI's class: logits of class k are linear in the features.

    Args:
        tensors: A public state dict, of `monai.networks.nets.vista3d132`.
        classes: VISTA3D's indices, one for each row of the head.
    """
    import torch
    from torch.nn import functional as F

    def dense(x: Tensor, layer: int) -> Tensor:
        return F.linear(
            x, tensors[f"class_head.mlp.{layer}.weight"], tensors[f"class_head.mlp.{layer}.bias"]
        )

    embedded = tensors["class_head.class_embeddings.weight"][list(classes), None]
    rows = dense(F.gelu(F.instance_norm(dense(embedded, 0))), 3)
    kept = (
        "image_encoder.encoder.",
        "image_encoder.up_layers_auto.",
        "class_head.image_post_mapping.",
    )
    return {
        **{name: tensor for name, tensor in tensors.items() if name.startswith(kept)},
        "head.weight": rows[:, 0, :, None, None, None],
        "head.bias": torch.zeros(len(rows)),
    }
