"""`ctfm`: CT-FM's whole-body segmentation model, the 117 classes of TotalSegmentator."""

from __future__ import annotations

from fseft.builtin.models.shared.labels import TOTALSEGMENTATOR_117
from fseft.plugin import CheckpointSpec, FoundationModelSpec
from fseft.schemas import Contract, Intensity, ModelCard

CARD = ModelCard(
    name="ctfm",
    summary="CT-FM, SegResNetDS, 117 structures in CT",
    architecture="segresnet-ds",
    hparams={"init_filters": 32, "blocks_down": [1, 2, 2, 4, 4], "norm": "batch"},
    parameters=87_167_126,
    classes=TOTALSEGMENTATOR_117,
    activation="softmax",
    contract=Contract(
        orientation="SPL",
        intensity={"ct": Intensity(scheme="window", low=-1024, high=2048)},
        patch_size=(96, 160, 160),
        spacing_range_mm=(1.5, 1.5),  # of TotalSegmentator's public data, not resampled
        interpolation="linear",
        alignment="first-voxel",
        padding="zero",
    ),
    licence="Apache-2.0",
    shareable=True,
    home="https://huggingface.co/project-lighter/whole_body_segmentation",
    datasets=("IDC", "TotalSegmentator"),
    reference="Pai et al. 2025, arXiv:2501.09001",
)
SPEC = FoundationModelSpec.public(
    CARD,
    CheckpointSpec(
        file="model.safetensors",
        url="https://huggingface.co/project-lighter/whole_body_segmentation/resolve/main/"
        "model.safetensors",
        marks=(r"^encoder\.conv_init\.weight", r"^up_layers\.3\.head\."),
        ignored=(r"^up_layers\.[012]\.head\.",),
    ),
    recommended_for="structures of the whole body in CT, on a GPU",
)
