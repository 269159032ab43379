"""Pre-trained models, and the entry for any model of nnU-Net v2."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fseft.errors import FseftError, pluralise
from fseft.plugin import CheckpointSpec, FoundationModelSpec
from fseft.schemas import Contract, Intensity, ModelCard
from fseft_nnunet import plans
from fseft_nnunet.labels import TOTALSEGMENTATOR_V1

if TYPE_CHECKING:
    from pathlib import Path

TWICE = (r"\.all_modules\.", r"^decoder\.encoder\.")
"""Patterns of the second names of tensors in checkpoints of nnU-Net v2."""

# --- nnU-Net v2 ---------------------------------------------------------------------------------

TRAINED = CheckpointSpec(
    file="checkpoint_final.pth",
    marks=(r"^encoder\.stages\.0\.", r"^decoder\.seg_layers\."),
    ignored=TWICE,
    convert="fseft_nnunet.networks:one_head",
    card="fseft_nnunet.plans:card",
)

NNUNET = FoundationModelSpec.public(
    ModelCard(
        name="nnunet",
        summary="any model of nnU-Net v2, as described by its plans",
        architecture="plainconv",
        contract=Contract(orientation="SPL", assumed_orientation=True),
        licence="set by the model's owner",
        home="https://github.com/MIC-DKFZ/nnUNet",
        reference="Isensee et al. 2021, doi:10.1038/s41592-020-01008-z",
    ),
    TRAINED,
)

TOTALSEGMENTATOR = FoundationModelSpec.public(
    ModelCard(
        name="totalsegmentator",
        summary="TotalSegmentator v2 at 3 mm (task 297), 117 structures in CT",
        architecture="plainconv",
        # TotalSegmentator reorients images to RAS; nnU-Net reads them in SimpleITK's axis order.
        contract=Contract(orientation="SAR"),
        licence="Apache-2.0",
        shareable=True,
        home="https://github.com/wasserth/TotalSegmentator",
        datasets=("TotalSegmentator",),
        reference="Wasserthal et al. 2023, doi:10.1148/ryai.230024",
    ),
    replace(TRAINED, card="fseft_nnunet.models:totalsegmentator_card"),
)
STRUCTURES = 117


def totalsegmentator_card(card: ModelCard, file: Path, content: object) -> ModelCard:
    """Returns the card as described by the plans.

    Raises:
        FseftError: The plans belong to another model.
    """
    described = plans.card(card, file, content)
    count = len(described.classes)
    if count != STRUCTURES:
        raise FseftError(
            f"has {pluralise(count, 'structure')}, the model at 3 mm has {STRUCTURES}",
            hint="Use the checkpoint of task 297, or import it as `nnunet`.",
        )
    return described


# --- nnssl --------------------------------------------------------------------------------------

NNSSL_RESENCL = FoundationModelSpec.public(
    ModelCard(
        name="nnssl_resencl",
        summary="nnssl, encoder of ResEnc-L, self-supervised on brain MR",
        architecture="resenc",
        parameters=102_348_193,
        contract=Contract(
            orientation="SAR",
            spacing_mm=(1.0, 1.0, 1.0),
            intensity={"mr": Intensity(scheme="zscore")},
            patch_size=(160, 160, 160),
            crop="nonzero",
            interpolation="nnunet",
            padding="zero",
        ),
        licence="CC-BY-4.0",
        shareable=True,
        home="https://huggingface.co/AnonRes",
        datasets=("OpenMind",),
        reference="Wald et al. 2024, arXiv:2412.17041",
        scope="encoder",
    ),
    CheckpointSpec(
        file="checkpoint_final.pth",
        marks=(r"^encoder\.stem\.", r"^encoder\.stages\.5\.blocks\."),
        ignored=(*TWICE, r"^decoder\."),
        covers=r"^encoder\.",
    ),
    recommended_for="MR of the head, on a GPU",
)

# --- STU-Net ------------------------------------------------------------------------------------


def _stunet(size: str, width: int, blocks: int, parameters: int) -> FoundationModelSpec:
    card = ModelCard(
        name=f"stunet_{size[0]}",
        summary=f"STU-Net-{size[0].upper()}, {len(TOTALSEGMENTATOR_V1)} structures in CT",
        architecture="stunet",
        hparams={"width": width, "blocks": blocks},
        parameters=parameters,
        classes=TOTALSEGMENTATOR_V1,
        activation="softmax",
        # plan_files/*.model.pkl in the owners' repository: scheme `nonCT`, although it is CT. It is
        # the z-score of nnU-Net v1, which normalises whole scans after resampling.
        contract=Contract(
            orientation="SAR",
            spacing_mm=(1.5, 1.5, 1.5),
            intensity={"ct": Intensity(scheme="zscore", region="resampled")},
            patch_size=(128, 128, 128),
            crop="nonzero",
            interpolation="nnunet",
            padding="zero",
        ),
        licence="Apache-2.0",
        shareable=True,
        home="https://github.com/uni-medical/STU-Net",
        datasets=("TotalSegmentator",),
        reference="Huang et al. 2023, arXiv:2304.06716",
    )
    checkpoint = CheckpointSpec(
        file=f"{size}_ep4k.model",
        marks=(r"^conv_blocks_context\.0\.0\.conv1\.", r"^seg_outputs\.4\."),
        ignored=(r"^seg_outputs\.[0-3]\.",),
    )
    return FoundationModelSpec.public(card, checkpoint)


STUNETS = (
    _stunet("small", 16, 1, 14_546_121),
    _stunet("base", 32, 1, 58_161_449),
    _stunet("large", 64, 2, 440_100_585),
    _stunet("huge", 96, 3, 1_457_023_401),
)
