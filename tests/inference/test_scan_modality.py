"""Scans of another modality than the training scans are refused where the modality is known."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fseft import api
from fseft.errors import FseftError
from fseft.inference.model import open_model
from fseft.inference.scan_modality import known_modality
from fseft.inference.segment_case import read_scan
from fseft.model_zoo.adapter_file import change_manifest, read_manifest
from fseft.schemas import Contract, Intensity
from fseft.volume.geometry import Geometry
from fseft.volume.image import read_labels, write_volume
from tests.sample_data import a_scan, adapt, write_model
from tests.volume.test_dicom import write_series

MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
GEOMETRY = Geometry((30, 34, 38), np.diag([1.5, 1.5, 1.5, 1]))


@pytest.fixture
def ct(tmp_path):
    path = tmp_path / "scans" / "x.nii.gz"
    path.parent.mkdir()
    write_volume(path, a_scan(0, GEOMETRY.shape)[0], GEOMETRY)
    return path


@pytest.fixture
def adapter_for_mr(request_for, workspace):
    path = adapt(request_for(), workspace).adapter
    preprocessing = read_manifest(path).preprocessing.model_copy(update={"modality": "mr"})
    change_manifest(path, preprocessing=preprocessing)
    return path


def declare(folder, channel):
    (folder / "dataset.json").write_text(json.dumps({"channel_names": {"0": channel}}))


def of(path):
    known = known_modality(
        path, read_scan([path], [open_model(api.get_model("phantom-tiny")).manifest], "x").array
    )
    return known and known.modality


@pytest.mark.parametrize(("tags", "modality"), [({}, "ct"), ({"0008|0016": MR_IMAGE}, "mr")])
def test_the_header_of_a_series_states_its_modality(tmp_path, tags, modality):
    assert of(write_series(tmp_path, [0, 2, 4], **tags)) == modality


def test_a_dataset_json_states_the_modality_of_its_images(ct, tmp_path):
    assert of(ct) == "ct"
    declare(ct.parent, "FLAIR")
    assert of(ct) == "mr"
    images = ct.parent / "imagesTs"
    images.mkdir()
    assert of(ct.rename(images / ct.name)) == "mr"


def test_the_description_of_another_folder_does_not_count(ct, tmp_path):
    declare(tmp_path, "FLAIR")
    assert of(ct) == "ct"


def test_values_state_ct_only_by_air_in_hounsfield_units(ct):
    image = a_scan(0, GEOMETRY.shape)[0]
    rng = np.random.default_rng(0)
    for array in (
        np.maximum(image, -800),  # the lung, or cropped to the body
        image + np.int16(1000),
        rng.integers(-4096, 4096, image.shape).astype(np.int16),  # phases of MR
    ):
        write_volume(ct, array, GEOMETRY)
        assert of(ct) is None


def test_ct_is_refused_by_an_adapter_for_mr_and_segmented_on_request(
    ct, adapter_for_mr, workspace, tmp_path, caplog
):
    options = {"workspace": workspace, "device": "cpu"}
    difference = (
        r"the scan is CT \(\d+% of voxels have the HU of air\), and the network was trained on MR"
    )
    with pytest.raises(FseftError, match=rf"case x, .*x\.nii\.gz: {difference}.*any_modality"):
        api.predict(ct, adapter_for_mr, tmp_path / "out", **options)
    assert not (tmp_path / "out" / "x.nii.gz").exists()
    result = api.predict(ct, adapter_for_mr, tmp_path / "out", any_modality=True, **options)
    assert result.segmented == ["x"]
    assert "the scan is CT" in caplog.text


def test_a_scan_of_another_modality_does_not_prevent_the_segmentation_of_others(
    ct, adapter_for_mr, workspace, tmp_path
):
    image = a_scan(1, GEOMETRY.shape)[0]
    write_volume(ct.parent / "y.nii.gz", image + np.int16(1000), GEOMETRY)
    with pytest.raises(FseftError, match="the scan is CT"):
        api.predict(ct.parent, adapter_for_mr, tmp_path / "out", workspace=workspace, device="cpu")
    assert read_labels(tmp_path / "out" / "y.nii.gz").array.shape[1:] == GEOMETRY.shape


def test_a_scan_of_unknown_modality_is_segmented_with_a_warning(
    ct, request_for, workspace, tmp_path, caplog
):
    write_volume(ct, np.maximum(a_scan(0, GEOMETRY.shape)[0], 0), GEOMETRY)
    adapter = adapt(request_for(), workspace).adapter
    api.predict(ct, adapter, tmp_path / "out", workspace=workspace, device="cpu")
    assert "not CT in HU" in caplog.text


def test_a_model_for_several_modalities_takes_that_of_the_scan(ct, workspace, tmp_path):
    intensity = {
        "ct": Intensity(scheme="window", low=0, high=1),
        "mr": Intensity(scheme="zscore"),
    }
    write_model(workspace, "both", contract=Contract(intensity=intensity))
    write_model(workspace, "mr", contract=Contract(intensity={"mr": intensity["mr"]}))
    write_volume(ct, np.maximum(a_scan(0, GEOMETRY.shape)[0], 0), GEOMETRY)  # as of MR
    options = {"workspace": workspace, "device": "cpu"}
    for channel, same in (("MR", True), ("CT", False)):
        declare(ct.parent, channel)
        for name in ("both", "mr"):
            output = tmp_path / f"{channel}-{name}"
            api.predict(ct, output=output, model=name, any_modality=True, **options)
        found = [
            read_labels(tmp_path / f"{channel}-{name}" / "x.nii.gz").array
            for name in ("both", "mr")
        ]
        assert np.array_equal(*found) == same
    with pytest.raises(FseftError, match=r"is CT \(channel names of dataset.json\).*trained on MR"):
        api.predict(ct, output=tmp_path / "refused", model="mr", **options)
