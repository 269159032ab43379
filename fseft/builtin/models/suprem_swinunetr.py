"""`suprem_swinunetr`: SuPreM's SwinUNETR; zero-shot uses its text-driven head."""

from __future__ import annotations

from fseft.builtin.models.shared.labels import UNIVERSAL_32
from fseft.builtin.models.shared.preprocessing_contracts import abdomen_ct
from fseft.builtin.models.shared.universal import TEXT_HEAD
from fseft.plugin import CheckpointSpec, FoundationModelSpec
from fseft.schemas import ModelCard

CARD = ModelCard(
    name="suprem_swinunetr",
    summary="SuPreM, SwinUNETR, 32 (or 25) structures in CT",
    architecture="swinunetr",
    hparams={"feature_size": 48, "patch_merging": "legacy", "text_classes": 32},
    parameters=62_595_364,
    classes=UNIVERSAL_32,
    writing_order=UNIVERSAL_32,
    contract=abdomen_ct(),
    licence="CC-BY-NC-ND-4.0 (repository) or Apache-2.0 (model page)",
    home="https://huggingface.co/MrGiovanni/SuPreM",
    datasets=("AbdomenAtlas",),
    reference="Li et al. 2024, arXiv:2501.11253",
    scope="body",
)
SPEC = FoundationModelSpec.public(
    CARD,
    CheckpointSpec(
        file="supervised_suprem_swinunetr_2100.pth",
        url="https://huggingface.co/MrGiovanni/SuPreM/resolve/main/"
        "supervised_suprem_swinunetr_2100.pth",
        marks=("^organ_embedding$", r"\bbackbone\.swinViT\.patch_embed"),
        renames=TEXT_HEAD,
        card="fseft.builtin.models.shared.universal:card_by_classes",
        covers=r"^(?!out\.)",
    ),
)
