"""`suprem_unet`: SuPreM's U-Net; zero-shot uses its text-driven head."""

from __future__ import annotations

from fseft.builtin.models.shared.labels import UNIVERSAL_32
from fseft.builtin.models.shared.preprocessing_contracts import abdomen_ct
from fseft.builtin.models.shared.universal import TEXT_HEAD
from fseft.plugin import CheckpointSpec, FoundationModelSpec
from fseft.schemas import ModelCard

CARD = ModelCard(
    name="suprem_unet",
    summary="SuPreM, U-Net, 32 (or 25) structures in CT",
    architecture="suprem-unet",
    hparams={"width": 64, "text_classes": 32},
    parameters=19_416_482,
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
        file="supervised_suprem_unet_2100.pth",
        url="https://huggingface.co/MrGiovanni/SuPreM/resolve/main/supervised_suprem_unet_2100.pth",
        marks=(r"^down_tr64\.ops\.0\.conv1",),
        renames=TEXT_HEAD,
        card="fseft.builtin.models.shared.universal:card_by_classes",
        covers=r"^(?!head\.)",
    ),
    recommended_for="organs of abdomen and thorax in CT",
)
