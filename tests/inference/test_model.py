"""A foundation model segments what it knows, without an adapter."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fseft import api
from fseft.errors import FseftError
from fseft.inference.model import open_model
from fseft.volume.geometry import Geometry
from fseft.volume.image import read_labels, write_volume


@pytest.fixture
def scan(tmp_path):
    """A small CT scan, 2 mm."""
    image = np.random.default_rng(0).normal(40, 30, (1, 24, 30, 28)).astype(np.int16)
    image[0, :3] = -1000
    write_volume(tmp_path / "ct.nii.gz", image, Geometry((24, 30, 28), np.diag([2.0, 2, 2, 1])))
    return tmp_path / "ct.nii.gz"


def test_a_model_predicts_its_own_classes_as_a_zero_shot_adapter_would(scan, tmp_path):
    result = api.predict(scan, output=tmp_path / "out", model="phantom-tiny", device="cpu")
    assert result.segmented == ["ct"]
    classes = api.get_model("phantom-tiny").card.classes
    index = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert index["labels"] == {name: value for value, name in enumerate(classes, start=1)}
    assert read_labels(tmp_path / "out" / "ct.nii.gz").array.shape == (1, 24, 30, 28)


def test_what_the_contract_leaves_open_is_decided_by_the_scan(scan):
    model = api.get_model("phantom-tiny")
    preprocessing = open_model(model, [scan], device="cpu").manifest.preprocessing
    low, high = model.card.contract.spacing_range_mm or (0, np.inf)
    assert preprocessing.modality == "ct"
    assert preprocessing.spacing_mm == (float(np.clip(2, low, high)),) * 3


def test_a_model_without_classes_is_refused(scan, tmp_path):
    with pytest.raises(FseftError, match="'none' has no classes"):
        api.predict(scan, output=tmp_path / "out", model="none")


@pytest.mark.parametrize(
    ("choice", "message"),
    [({}, "neither an adapter"), ({"adapter": "a", "model": "phantom-tiny"}, "both adapters")],
)
def test_either_adapters_or_a_model_are_passed(choice, message, scan, tmp_path):
    with pytest.raises(FseftError, match=message):
        api.predict(scan, output=tmp_path / "out", **choice)
