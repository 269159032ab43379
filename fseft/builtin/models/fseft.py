"""`fseft`: the supervised foundation model of the FSEFT paper, SwinUNETR with 29 structures."""

from __future__ import annotations

from fseft.builtin.models.shared.labels import FSEFT_29
from fseft.builtin.models.shared.preprocessing_contracts import abdomen_ct
from fseft.plugin import CheckpointSpec, FoundationModelSpec
from fseft.schemas import ModelCard

CARD = ModelCard(
    name="fseft",
    summary="SwinUNETR for 29 structures in CT, from nine partially labelled datasets",
    architecture="swinunetr",
    hparams={"feature_size": 48, "patch_merging": "legacy"},
    parameters=62_188_031,
    classes=FSEFT_29,
    activation="sigmoid",
    writing_order=FSEFT_29,
    contract=abdomen_ct(),
    licence="none (all rights reserved)",
    home="https://github.com/jusiro/fewshot-finetuning",
    datasets=(
        "BTCV",
        "CHAOS",
        "LiTS",
        "KiTS",
        "AbdomenCT-1K",
        "AMOS",
        "MSD",
        "AbdomenCT-12organ",
        "CT-ORG",
    ),
    reference="Silva-Rodríguez, Dolz and Ben Ayed 2025, Medical Image Analysis 103",
)
SPEC = FoundationModelSpec.public(
    CARD,
    CheckpointSpec(
        file="fseft.pth",
        marks=(r"^swinViT\.patch_embed", r"^classifier\.weight"),
        renames=((r"^classifier\.", "out.conv.conv."),),
    ),
)
