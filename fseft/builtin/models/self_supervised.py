"""`selfsup`: the self-supervised Swin encoder of Tang et al. Without a decoder."""

from __future__ import annotations

from fseft.builtin.models.shared.preprocessing_contracts import abdomen_ct
from fseft.plugin import CheckpointSpec, FoundationModelSpec
from fseft.schemas import ModelCard

CARD = ModelCard(
    name="selfsup",
    summary="Swin encoder, self-supervised on 5,050 CT scans",
    architecture="swinunetr",
    hparams={"feature_size": 48, "patch_merging": "legacy"},
    parameters=62_186_659,
    contract=abdomen_ct(low=-1000, high=1000, spacing_mm=(1.5, 1.5, 2.0)),
    licence="Apache-2.0",
    shareable=True,
    home="https://github.com/Project-MONAI/research-contributions/tree/main/SwinUNETR",
    datasets=("LUNA16", "TCIA CT Colonography", "TCIA Covid19", "LiDC", "HNSCC"),
    reference="Tang et al. 2022, arXiv:2111.14791",
    scope="encoder",
)
SPEC = FoundationModelSpec.public(
    CARD,
    CheckpointSpec(
        file="model_swinvit.pt",
        url="https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
        "model_swinvit.pt",
        # The published file has the encoder at the root, those of the training program under its
        # name.
        marks=(r"^(swinViT\.)?patch_embed\.proj\.weight", r"^(rotation|contrastive)_head\."),
        renames=(
            (r"^(patch_embed|layers\d)", r"swinViT.\1"),
            (r"\.mlp\.fc([12])\.", r".mlp.linear\1."),
        ),
        ignored=(r"^(swinViT\.)?norm\.", r"^rotation_head", r"^contrastive_head", r"^conv"),
        covers=r"^swinViT\.",
    ),
)
