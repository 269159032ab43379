"""A small network of every architecture is adapted, and predicts."""

from __future__ import annotations

import pytest

from fseft.inference.adapter_groups import open_adapters
from fseft.inference.request import PredictRequest
from fseft.inference.run import predict
from fseft.learn.networks.backbone import get_architecture
from fseft.registry import registry
from fseft.schemas import Contract, Intensity
from fseft.testing import TINY_NETWORKS
from fseft.volume.image import read_labels
from tests.sample_data import SHAPE, adapt, write_model

pytestmark = pytest.mark.full

SECOND = "swinunetr, second version"
VARIANTS = {name: (name, toy.hparams) for name, toy in TINY_NETWORKS.items()}
VARIANTS[SECOND] = ("swinunetr", {**TINY_NETWORKS["swinunetr"].hparams, "use_v2": True})


def test_there_is_a_variant_of_every_architecture():
    assert {name for name, _ in VARIANTS.values()} == set(registry().names("architecture"))


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_is_adapted_and_predicts(variant, workspace, request_for, blobs, tmp_path):
    name, hparams = VARIANTS[variant]
    contract = Contract(
        spacing_mm=(1.5, 1.5, 1.5),
        intensity={"ct": Intensity(scheme="window", low=-200, high=500)},
        patch_size=get_architecture(name).minimum_patch,
    )
    write_model(workspace, "small", architecture=name, hparams=hparams, contract=contract)
    result = adapt(request_for("lora", model="small", k=1, settings=("epochs=1",)), workspace)
    assert result.run.head_rows == {"Left kidney": "kidney_left"}
    scan = blobs / "imagesTr" / "b_0000.nii.gz"
    assert predict(
        PredictRequest((scan,), tmp_path / "out", open_adapters((result.adapter,), workspace))
    ).segmented == ["b"]
    assert read_labels(tmp_path / "out" / "b.nii.gz").array.shape == (1, *SHAPE)
