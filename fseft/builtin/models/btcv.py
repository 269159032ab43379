"""`btcv`: SwinUNETR for 13 abdominal organs, fine-tuned from the self-supervised encoder."""

from __future__ import annotations

from fseft.builtin.models.shared.labels import BTCV_13
from fseft.builtin.models.shared.preprocessing_contracts import abdomen_ct
from fseft.plugin import CheckpointSpec, FoundationModelSpec
from fseft.schemas import ModelCard

CARD = ModelCard(
    name="btcv",
    summary="SwinUNETR for 13 abdominal organs in CT",
    architecture="swinunetr",
    hparams={"feature_size": 48, "patch_merging": "legacy"},
    parameters=62_187_296,
    classes=BTCV_13,
    activation="softmax",
    contract=abdomen_ct(spacing_mm=(1.5, 1.5, 2.0)),
    licence="Apache-2.0",
    shareable=True,
    home="https://github.com/Project-MONAI/research-contributions/tree/main/SwinUNETR/BTCV",
    datasets=("BTCV", "those of selfsup"),
    reference="Hatamizadeh et al. 2022, arXiv:2201.01266",
)
SPEC = FoundationModelSpec.public(
    CARD,
    CheckpointSpec(
        file="swin_unetr.base_5000ep_f48_lr2e-4_pretrained.pt",
        url="https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
        "swin_unetr.base_5000ep_f48_lr2e-4_pretrained.pt",
        bytes=256_349_766,
        marks=(r"^swinViT\.patch_embed", r"^out\.conv\.conv\."),
        foreign=(r"^swinViT\.layers1c\.",),
    ),
)
