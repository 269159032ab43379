"""`voco_b`, `voco_l`, `voco_h`: VoComni, omni-supervised SwinUNETRs of three widths."""

from __future__ import annotations

from fseft.builtin.models.shared.labels import VOCOMNI_20
from fseft.builtin.models.shared.preprocessing_contracts import abdomen_ct
from fseft.plugin import CheckpointSpec, FoundationModelSpec
from fseft.schemas import ModelCard


def _spec(size: str, feature_size: int, parameters: int) -> FoundationModelSpec:
    card = ModelCard(
        name=f"voco_{size}",
        summary=f"VoComni, SwinUNETR v2 of width {feature_size}, "
        f"{len(VOCOMNI_20)} structures in CT",
        architecture="swinunetr",
        hparams={"feature_size": feature_size, "patch_merging": "legacy", "use_v2": True},
        parameters=parameters,
        classes=VOCOMNI_20,
        activation="softmax",
        contract=abdomen_ct(),
        licence="Apache-2.0",
        shareable=True,
        home="https://huggingface.co/Luffy503/VoCo",
        reference="Wu et al. 2024, arXiv:2410.09890",
    )
    file = f"VoComni_{size.upper()}.pt"
    checkpoint = CheckpointSpec(
        file=file,
        url=f"https://huggingface.co/Luffy503/VoCo/resolve/main/{file}",
        marks=(r"^swinViT\.layers1c\.", r"^decoder1\."),
    )
    return FoundationModelSpec.public(card, checkpoint)


SPECS = (
    _spec("b", 48, 72_762_999),
    _spec("l", 96, 290_392_695),
    _spec("h", 192, 1_160_845_431),
)
