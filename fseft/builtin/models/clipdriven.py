"""`clipdriven`: the CLIP-driven universal model, SwinUNETR; zero-shot uses its text-driven head."""

from __future__ import annotations

from fseft.builtin.models.shared.labels import UNIVERSAL_32
from fseft.builtin.models.shared.preprocessing_contracts import abdomen_ct
from fseft.builtin.models.shared.universal import TEXT_HEAD
from fseft.plugin import CheckpointSpec, FoundationModelSpec
from fseft.schemas import ModelCard

CARD = ModelCard(
    name="clipdriven",
    summary="universal model, SwinUNETR, 32 structures in CT",
    architecture="swinunetr",
    hparams={"feature_size": 48, "patch_merging": "legacy", "text_classes": 32},
    parameters=62_595_364,
    classes=UNIVERSAL_32,
    writing_order=UNIVERSAL_32,
    contract=abdomen_ct(),
    licence="CC-BY-NC-ND-4.0",
    shareable=False,
    home="https://github.com/ljwztc/CLIP-Driven-Universal-Model",
    datasets=(
        "BTCV",
        "CHAOS",
        "LiTS",
        "KiTS",
        "AbdomenCT-1K",
        "CT-ORG",
        "AMOS22",
        "MSD",
        "Pancreas-CT",
        "and others",
    ),
    reference="Liu et al. 2023, arXiv:2301.00785",
    scope="body",
)
SPEC = FoundationModelSpec.public(
    CARD,
    CheckpointSpec(
        file="supervised_clip_driven_universal_swin_unetr_2100.pth",
        url="https://huggingface.co/MrGiovanni/SuPreM/resolve/main/"
        "supervised_clip_driven_universal_swin_unetr_2100.pth",
        bytes=758_907_945,
        marks=("^organ_embedding$", r"^swinViT\.patch_embed"),
        foreign=(r"\bbackbone\.",),
        renames=TEXT_HEAD,
        covers=r"^(?!out\.)",
    ),
)
