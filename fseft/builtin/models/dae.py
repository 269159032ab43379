"""`dae`: the Swin encoder of Disruptive Autoencoders. Without a decoder: no black-box methods."""

from __future__ import annotations

from fseft.plugin import CheckpointSpec, FoundationModelSpec
from fseft.schemas import Contract, Intensity, ModelCard

CARD = ModelCard(
    name="dae",
    summary="Swin encoder, self-supervised on CT and brain MR",
    architecture="swinunetr",
    hparams={"feature_size": 48, "patch_merging": "legacy"},
    parameters=62_186_659,
    contract=Contract(
        intensity={
            "ct": Intensity(scheme="window", low=-1000, high=1000),
            "mr": Intensity(scheme="zscore", region="nonzero"),
        },
        patch_size=(96, 96, 96),
        # Not resampled; the range of LIDC-IDRI (Armato et al. 2011), which includes BraTS (1 mm).
        spacing_range_mm=(0.46, 5.0),
        interpolation="linear",
        alignment="first-voxel",
        padding="zero",
    ),
    licence="Apache-2.0",
    shareable=True,
    home="https://github.com/Project-MONAI/research-contributions/tree/main/DAE",
    datasets=(
        "HNSCC",
        "LUNA16",
        "TCIA CT Colonography",
        "TCIA Covid19",
        "LIDC",
        "BraTS 2021",
        "and others",
    ),
    reference="Valanarasu et al. 2023, arXiv:2307.16896",
    scope="encoder",
)
SPEC = FoundationModelSpec.public(
    CARD,
    CheckpointSpec(
        file="ssl_pretrained_weights.pth",
        url="https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
        "ssl_pretrained_weights.pth",
        marks=(r"^encoder\.patch_embed\.proj\.weight", r"^encoder\.layers1\.0\.0\."),
        # Each level is nested in one more list than in MONAI's network.
        renames=(
            (r"^encoder\.patch_embed\.", "swinViT.patch_embed."),
            (r"^encoder\.(layers\d)\.0\.0\.", r"swinViT.\1.0."),
            (r"\.mlp\.fc([12])\.", r".mlp.linear\1."),
        ),
        ignored=(r"^(?!encoder\.)", r"^encoder\.(mask_token|norm)\b"),
        covers=r"^swinViT\.",
    ),
)
