"""`monai_wholebody`: MONAI's bundle for the 104 classes of TotalSegmentator v1, SegResNet."""

from __future__ import annotations

from fseft.builtin.models.shared.labels import TOTALSEGMENTATOR_104
from fseft.plugin import CheckpointSpec, FoundationModelSpec
from fseft.schemas import Contract, Intensity, ModelCard

CARD = ModelCard(
    name="monai_wholebody",
    summary="MONAI whole-body bundle, SegResNet, 104 structures in CT",
    architecture="segresnet",
    hparams={
        "init_filters": 32,
        "blocks_down": [1, 2, 2, 4],
        "blocks_up": [1, 1, 1],
        "dropout_prob": 0.2,
    },
    parameters=18_799_401,
    classes=TOTALSEGMENTATOR_104,
    activation="softmax",
    # The bundle applies a z-score to non-zero voxels, and then maps the extremes to -1 and 1,
    # which cancels the z-score.
    contract=Contract(
        spacing_mm=(1.5, 1.5, 1.5),
        intensity={"ct": Intensity(scheme="minmax", region="resampled")},
        patch_size=(96, 96, 96),
        crop="none",
        interpolation="linear",
        alignment="first-voxel",
    ),
    licence="Apache-2.0",
    shareable=True,
    home="https://monai.io/model-zoo.html",
    datasets=("TotalSegmentator",),
    reference="MONAI bundle wholeBody_ct_segmentation 0.2.5; "
    "Wasserthal et al. 2023, arXiv:2208.05868",
)
SPEC = FoundationModelSpec.public(
    CARD,
    CheckpointSpec(
        file="model.pt",
        marks=(r"^convInit\.conv\.weight", r"^conv_final\.2\.conv"),
    ),
    recommended_for="structures of the whole body in CT, on a CPU or a small GPU",
)
