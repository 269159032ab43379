"""A foundation model segments what it knows, without an adapter."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fseft import api
from fseft.errors import FseftError
from fseft.inference.model import for_scan, open_model
from fseft.schemas import Contract, Intensity
from fseft.volume.geometry import Geometry
from fseft.volume.image import read_labels, read_volume, write_volume
from fseft.volume.label_values import translate
from tests.sample_data import adapt, write_model


@pytest.fixture
def scan(tmp_path):
    """A small CT scan, 2 mm."""
    image = np.random.default_rng(0).normal(40, 30, (1, 24, 30, 28)).astype(np.int16)
    image[0, :3] = -1000
    write_volume(tmp_path / "ct.nii.gz", image, Geometry((24, 30, 28), np.diag([2.0, 2, 2, 1])))
    return tmp_path / "ct.nii.gz"


def test_a_model_predicts_its_own_classes_on_the_grid_of_the_scan(scan, tmp_path):
    result = api.predict(scan, output=tmp_path / "out", model="phantom-tiny", device="cpu")
    assert result.segmented == ["ct"]
    classes = api.get_model("phantom-tiny").card.classes
    index = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert index["labels"] == {name: value for value, name in enumerate(classes, start=1)}
    assert read_labels(tmp_path / "out" / "ct.nii.gz").array.shape == (1, 24, 30, 28)


def test_classes_that_overlap_are_written_as_by_a_zero_shot_adapter(
    scan, request_for, workspace, tmp_path
):
    classes = ("kidney_tumor", "kidney_left")
    write_model(workspace, "nested", classes=classes, writing_order=classes, seed=3)
    mapping = {"Left kidney": "kidney_left", "tumour": "kidney_tumor"}
    adapter = adapt(request_for("zero-shot", model="nested", mapping=mapping), workspace).adapter
    options = {"device": "cpu", "workspace": workspace}
    api.predict(scan, adapter, tmp_path / "adapter", **options)
    api.predict(scan, output=tmp_path / "model", model="nested", **options)
    expected, found = (read_labels(tmp_path / n / "ct.nii.gz").array for n in ("adapter", "model"))
    assert set(np.unique(expected)) == {0, 1, 7}
    np.testing.assert_array_equal(found, translate(expected, {7: 1, 1: 2}, np.uint8))


def test_what_the_contract_leaves_open_is_decided_by_each_scan(scan):
    model = api.get_model("phantom-tiny")
    adapter = for_scan(open_model(model), read_volume(scan), "cpu")
    preprocessing = adapter.manifest.preprocessing
    low, high = model.card.contract.spacing_range_mm or (0, np.inf)
    assert preprocessing.modality == "ct"
    assert preprocessing.spacing_mm == (float(np.clip(2, low, high)),) * 3


def test_a_scan_has_the_same_result_whatever_scans_come_with_it(scan, workspace, tmp_path):
    """The first one is damaged, the others differ in spacing and modality."""
    intensity = {name: Intensity(scheme="zscore") for name in ("ct", "mr")}
    write_model(workspace, "open", contract=Contract(intensity=intensity))
    volume = read_volume(scan)
    scans = tmp_path / "scans"
    scans.mkdir()
    (scans / "a.nii.gz").write_bytes(b"no image")
    for name, spacing, offset in (("b", 2.0, 0), ("c", 4.0, 0), ("d", 2.0, 1000)):
        geometry = Geometry(volume.geometry.shape, np.diag([spacing, spacing, spacing, 1]))
        write_volume(scans / f"{name}.nii.gz", volume.array + np.int16(offset), geometry)
    options = {"model": "open", "device": "cpu", "workspace": workspace}
    with pytest.raises(FseftError, match=r"1 of 4 scans failed \(a\)"):
        api.predict(scans, output=tmp_path / "all", **options)
    for name in "bcd":
        api.predict(scans / f"{name}.nii.gz", output=tmp_path / name, **options)
        alone, together = (
            read_labels(tmp_path / folder / f"{name}.nii.gz").array for folder in (name, "all")
        )
        assert len(np.unique(alone)) > 1
        np.testing.assert_array_equal(together, alone)


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
