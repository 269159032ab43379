"""`anatomix`, `anatomix-dev`: contrastive features from randomised synthesis. Without a head."""

from __future__ import annotations

from typing import Any

from fseft.plugin import CheckpointSpec, FoundationModelSpec
from fseft.schemas import Contract, Intensity, ModelCard

EXTREMES = Intensity(scheme="percentiles", percentiles=(0, 100))


def _spec(
    name: str, summary: str, parameters: int, last: int, **hparams: Any
) -> FoundationModelSpec:
    card = ModelCard(
        name=name,
        summary=summary,
        architecture="anatomix",
        hparams=hparams,
        parameters=parameters,
        # Trained on synthetic shapes without a scale or an orientation.
        contract=Contract(intensity={"ct": EXTREMES, "mr": EXTREMES, "other": EXTREMES}),
        licence="MIT",
        shareable=True,
        home="https://github.com/neel-dey/anatomix",
        datasets=("randomised synthesis",),
        reference="Dey et al. 2024, arXiv:2411.02372",
        scope="body",
    )
    checkpoint = CheckpointSpec(
        file=f"{name}.pth",
        url=f"https://huggingface.co/neeldey/anatomix/resolve/main/{name}.pth",
        marks=(r"^(model\.)?0\.weight", rf"^(model\.)?{last}\.weight"),
        foreign=(rf"^(model\.)?{last + 1}\.", rf"^(model\.)?{last + 14}\."),
        renames=((r"^(model\.)?(?=\d+\.)", "layers."),),
        covers=r"^layers\.",
    )
    return FoundationModelSpec.public(card, checkpoint)


SPECS = (
    _spec(
        "anatomix",
        "U-Net, contrastive pre-training on randomised synthesis",
        5_899_361,
        65,
        width=16,
        features=16,
        levels=4,
        variant="batch",
    ),
    _spec(
        "anatomix-dev",
        "wider U-Net of the authors of anatomix, experimental",
        94_369_601,
        79,
        width=32,
        features=32,
        levels=5,
        variant="instance",
    ),
)
