"""`suprem_segresnet`: SuPreM's SegResNet without its head, whose classes are not documented."""

from __future__ import annotations

from fseft.builtin.models.shared.preprocessing_contracts import abdomen_ct
from fseft.plugin import CheckpointSpec, FoundationModelSpec
from fseft.schemas import ModelCard

CARD = ModelCard(
    name="suprem_segresnet",
    summary="SuPreM, SegResNet, CT",
    architecture="segresnet",
    hparams={"init_filters": 16, "blocks_down": [1, 2, 2, 4], "blocks_up": [1, 1, 1]},
    parameters=4_700_897,
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
        file="supervised_suprem_segresnet_2100.pth",
        url="https://huggingface.co/MrGiovanni/SuPreM/resolve/main/"
        "supervised_suprem_segresnet_2100.pth",
        marks=(r"^convInit\.conv\.weight", r"^conv_final\.2\.conv"),
        ignored=(r"^conv_final\.2\.",),
        covers=r"^(?!conv_final\.2\.)",
    ),
)
