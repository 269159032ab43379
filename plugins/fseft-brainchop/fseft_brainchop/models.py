"""The public models; imports no torch.

The networks expect FreeSurfer's conformed grid. Thresholds of the crop and scaling of intensities
are those of the owner's viewer (`brainchop-parameters.js`). Scans are resampled by cubic splines,
not linearly as there: volumes at 1.5 mm are then closer to those at 1 mm.
"""

from __future__ import annotations

from typing import Any

from fseft.plugin import CheckpointSpec, FoundationModelSpec
from fseft.schemas import Contract, Intensity, Modality, ModelCard
from fseft_brainchop.labels import REGIONS_17, REGIONS_49, REGIONS_103

COMMIT = "4c87885f3a2a8835e260d521dcec922b58d91d41"
ADDRESS = f"https://raw.githubusercontent.com/neuroneural/brainchop/{COMMIT}/public/models"
SIDE = 256  # of the conformed grid, in voxels of 1 mm

EXTREMES = Intensity(scheme="percentiles", percentiles=(0, 100))
QUANTILES = Intensity(scheme="percentiles", percentiles=(5, 95), cube_mm=SIDE)
PALINDROME = [1, 2, 4, 8, 16, 8, 4, 2, 1]
ASCENDING = [1, 2, 2, 4, 4, 8, 8, 16]
REPEATED = [16, 8, 4, 2, 1] * 5


def _contract(
    scheme: Intensity, threshold: float, *, margin: int = 0, modalities: tuple[Modality, ...]
) -> Contract:
    return Contract(
        orientation="LIA",
        spacing_mm=(1.0, 1.0, 1.0),
        intensity=dict.fromkeys(modalities, scheme),
        crop="head",
        crop_threshold=threshold,
        crop_margin_voxels=margin,
        window_size=(SIDE, SIDE, SIDE),
    )


def _checkpoint(folder: str, json_sha256: str, weights: str, weights_sha256: str) -> CheckpointSpec:
    return CheckpointSpec(
        file="model.json",
        url=f"{ADDRESS}/{folder}/model.json",
        sha256=json_sha256,
        companions=((weights, weights_sha256),),
        marks=(r"^head\.weight", r"^layers\.0\.conv\.weight"),
        read="fseft_brainchop.tfjs:read",
        card="fseft_brainchop.tfjs:check_network",
    )


def _card(
    name: str,
    summary: str,
    classes: tuple[str, ...],
    parameters: int,
    contract: Contract,
    reference: str = "Plis et al. 2024, doi:10.52294/001c.123059",
    **hparams: Any,
) -> ModelCard:
    return ModelCard(
        name=name,
        summary=summary,
        architecture="meshnet",
        hparams={"dilations": PALINDROME, "activation": "elu", "norm": "none", **hparams},
        parameters=parameters,
        classes=classes,
        activation="softmax",
        contract=contract,
        licence="MIT",
        shareable=True,
        home="https://github.com/neuroneural/brainchop",
        reference=reference,
    )


SPECS = tuple(
    FoundationModelSpec.public(card, checkpoint)
    for card, checkpoint in (
        (
            _card(
                "brainchop-18",
                "MeshNet, 17 brain structures in T1 of the whole head",
                REGIONS_17,
                96_408,
                _contract(EXTREMES, 0.2, modalities=("mr",)),
                channels=21,
            ),
            _checkpoint(
                "model18cls",
                "57346ac8b66ebe8d92296b1cf9988143be4949b6ef9695a790ef3d7fba3fb81b",
                "model.bin",
                "725096439f64ece1ca45ec3c5115c9fa6004f6538cac3032b85966d3772b605e",
            ),
        ),
        (
            _card(
                "brainchop-50",
                "MeshNet, 49 brain structures and cortical regions in T1 of the whole head",
                REGIONS_49,
                197_030,
                _contract(QUANTILES, 0.0, modalities=("mr",)),
                channels=30,
            ),
            _checkpoint(
                "model30chan50cls",
                "105db3a77c49fb3e7d59c6e9506981e13223b76dcd4c4b407640d422409e5353",
                "model.bin",
                "a7e597568dc7750c64cce8c64c4ca3ec7215716949efd741f19904da1baffa81",
            ),
        ),
        (
            _card(
                "brainchop-104",
                "MeshNet, 103 brain structures and cortical regions, left and right, in T1 of the "
                "whole head",
                REGIONS_103,
                86_372,
                _contract(EXTREMES, 0.0, modalities=("mr",)),
                channels=21,
                dilations=ASCENDING,
                activation="relu",
            ),
            _checkpoint(
                "model21_104class",
                "b80a9ac7dccaecc08d59a7f2285a1dce50305d317f505b437518773ab2b27446",
                "group1-shard1of1.bin",
                "8a0aa1e2d94e5edc94c54aed900da978d2a1388bee4621cee05e473db64b84af",
            ),
        ),
        (
            _card(
                "brainchop-gwm",
                "MeshNet, white and grey matter in T1 of the whole head",
                ("white_matter", "grey_matter"),
                87_183,
                _contract(QUANTILES, 0.2, modalities=("mr",)),
                channels=20,
            ),
            _checkpoint(
                "model20chan3cls",
                "53932edad5330073bbac906049a31b84a2ca3d8c65d658feea848130004b984b",
                "model.bin",
                "aecc03e3db596bfffab0ea1143f0848dbf4da4e317e04ef202986c6888cd467f",
            ),
        ),
        (
            _card(
                "mindgrab",
                "MeshNet, brain mask of the whole head in any modality",
                ("brain",),
                146_237,
                _contract(EXTREMES, 0.5, margin=20, modalities=("mr", "ct", "other")),
                "MindGrab for BrainChop, 2025, arXiv:2506.11860",
                channels=15,
                dilations=REPEATED,
                activation="gelu",
                norm="instance",
            ),
            _checkpoint(
                "mindgrab",
                "24d1bcccba736a83c80b336ca349297f4839ae08b8ec92ec72c5d6adb9afe76e",
                "model.bin",
                "c9a01490fe2d13acc1515fd019b69db176ebe6f40c9b84aeb77f25acbc2ee0f3",
            ),
        ),
    )
)
