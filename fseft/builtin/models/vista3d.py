"""`vista3d`: the automatic branch of NVIDIA's VISTA3D, with one head row per class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.builtin.models.shared.labels import VISTA3D_132
from fseft.builtin.models.shared.preprocessing_contracts import abdomen_ct
from fseft.plugin import CheckpointSpec, FoundationModelSpec
from fseft.schemas import ModelCard

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

UNSUPPORTED = (2, 16, 18, 20, 21, 129, 130, 131)
"""Super-classes that the model merges from others, and class prompts without training."""

CLASSES = {
    index: name for index, name in enumerate(VISTA3D_132, start=1) if index not in UNSUPPORTED
}

CARD = ModelCard(
    name="vista3d",
    summary=f"VISTA3D, {len(CLASSES)} structures in CT",
    architecture="vista3d",
    hparams={"encoder_embed_dim": 48, "blocks_down": [1, 2, 2, 4, 4]},
    parameters=196_361_980,
    classes=tuple(CLASSES.values()),
    contract=abdomen_ct(low=-963.8247715525971, high=1053.678477684517, side=128),
    licence="NVIDIA Open Model License",
    home="https://huggingface.co/nvidia/NV-Segment-CT",
    reference="He et al. 2024, arXiv:2406.05285",
)
SPEC = FoundationModelSpec.public(
    CARD,
    CheckpointSpec(
        file="model.safetensors",
        url="https://huggingface.co/nvidia/NV-Segment-CT/resolve/main/"
        "vista3d_pretrained_model/model.safetensors",
        marks=(r"^image_encoder\.encoder\.conv_init", r"^class_head\.class_embeddings"),
        ignored=(r"^point_head\.", r"^image_encoder\.up_layers\.", r"\.weight_mapper\."),
        convert="fseft.builtin.models.vista3d:rows_for_classes",
    ),
)


def rows_for_classes(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Converts to the automatic branch, with one row of the head for each class of the card.

    Args:
        tensors: The public state dict, see `automatic_branch`.

    Returns:
        Tensors by the names of the architecture `vista3d`.
    """
    from fseft.builtin.architectures.vista3d import automatic_branch

    return automatic_branch(tensors, tuple(CLASSES))
