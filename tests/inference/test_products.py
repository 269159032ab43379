"""Files that a prediction writes apart from the label map: formats, statistics, pictures, report."""

from __future__ import annotations

import csv
import json
from dataclasses import fields, replace

import numpy as np
import pytest

from fseft import api, temporaries
from fseft.errors import FseftError
from fseft.experiment.devices import select_device
from fseft.inference import index
from fseft.inference import segment_case as step
from fseft.inference.adapter_groups import open_adapters
from fseft.inference.index import read_index
from fseft.inference.products import Products
from fseft.inference.request import PredictRequest
from fseft.inference.run import predict
from fseft.volume.geometry import Geometry
from fseft.volume.image import read_labels, write_labels, write_volume
from fseft.workspace import file_digest
from tests.sample_data import LABELS, a_scan, adapt

EVERYTHING = Products(("nifti", "masks", "seg.nrrd"), statistics=True, preview=True)
FILES = {
    *("x.nii.gz", "x.seg.nrrd", "statistics/x.json", "previews/x.png"),
    *("x/segmentations/Left kidney.nii.gz", "x/segmentations/tumour.nii.gz"),
}


@pytest.fixture
def request_of(request_for, workspace, tmp_path):
    adapter = adapt(request_for(), workspace).adapter
    geometry = Geometry((30, 34, 38), np.diag([1.5, 1.5, 1.5, 1]))
    (tmp_path / "in").mkdir()
    write_volume(tmp_path / "in" / "x.nii.gz", a_scan(1, geometry.shape)[0], geometry)

    def make(products=EVERYTHING, **changed):
        opened = open_adapters((adapter,), workspace)
        request = PredictRequest((tmp_path / "in",), tmp_path / "out", opened, products=products)
        return replace(request, **changed)

    return make


def no(*_):
    return False


def files(folder):
    found = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return {path.as_posix() for path in found if not path.name.startswith(".")}


def test_all_products_are_made_from_one_label_map(request_of, tmp_path):
    predict(request_of())
    out = tmp_path / "out"
    assert files(out) == {*FILES, "predictions.json", "statistics.csv"}
    labels = read_labels(out / "x.nii.gz").array[0]
    for name, value in LABELS.items():
        mask = read_labels(out / "x" / "segmentations" / f"{name}.nii.gz").array[0]
        np.testing.assert_array_equal(mask, labels == value)
    np.testing.assert_array_equal(read_labels(out / "x.seg.nrrd").array[0], labels)
    rows = list(csv.DictReader((out / "statistics.csv").read_text().splitlines()))
    for row in rows:
        count = np.count_nonzero(labels == LABELS[row["structure"]])
        assert float(row["volume_ml"]) == pytest.approx(count * 1.5**3 / 1000, rel=1e-4)


def test_more_files_are_made_without_running_the_network_again(request_of, tmp_path, monkeypatch):
    predict(request_of(Products()))
    before = file_digest(tmp_path / "out" / "x.nii.gz")
    monkeypatch.setattr(step, "load_adapter_group", None)
    assert predict(request_of()).segmented == ["x"]
    assert files(tmp_path / "out") >= FILES
    assert file_digest(tmp_path / "out" / "x.nii.gz") == before
    assert predict(request_of()).skipped == ["x"]
    (tmp_path / "out" / "previews" / "x.png").unlink()
    assert predict(request_of(report=tmp_path / "run.json")).segmented == ["x"]
    assert json.loads((tmp_path / "run.json").read_text())["device"] == ""


def test_a_new_segmentation_removes_files_of_the_former_one(
    request_of, request_for, workspace, tmp_path
):
    predict(request_of())
    other = open_adapters((adapt(request_for("zero-shot"), workspace).adapter,), workspace)
    predict(request_of(Products(("seg.nrrd",)), adapters=other))
    assert files(tmp_path / "out") == {"x.seg.nrrd", "predictions.json", "statistics.csv"}
    assert read_index(tmp_path / "out" / "predictions.json").cases["x"].files == ("x.seg.nrrd",)


def test_a_file_of_somebody_else_is_never_replaced(request_of, tmp_path):
    predict(request_of(Products()))
    (tmp_path / "out" / "x.seg.nrrd").write_text("mine")
    with pytest.raises(FseftError, match=r"x\.seg\.nrrd.*was not written by fseft"):
        predict(request_of())
    assert (tmp_path / "out" / "x.seg.nrrd").read_text() == "mine"


@pytest.mark.parametrize("is_indexed", [False, True])
def test_a_label_map_of_somebody_else_stays_where_none_is_written(request_of, tmp_path, is_indexed):
    out, request = tmp_path / "out", request_of(Products(("seg.nrrd",)))
    out.mkdir()
    if is_indexed:
        predict(request)
        (out / "x.seg.nrrd").unlink()
    (out / "probabilities").mkdir()
    reference, foreign_map = out / "x.nii.gz", out / "probabilities" / "x.nii.gz"
    reference.write_bytes(b"a reference")
    foreign_map.write_bytes(b"of another program")
    assert predict(request).segmented == ["x"]
    assert predict(request).skipped == ["x"]
    with pytest.raises(FseftError, match=r"out.x\.nii\.gz: exists and was not written by fseft"):
        predict(request_of(Products()))
    with pytest.raises(FseftError, match=r"probabilities.x\.nii\.gz: exists and was not written"):
        predict(replace(request, probabilities=True))
    assert reference.read_bytes() == b"a reference"
    assert foreign_map.read_bytes() == b"of another program"


@pytest.mark.parametrize("has_exchange", [True, False])
def test_a_case_that_was_replaced_by_half_is_made_again(
    request_of, request_for, workspace, tmp_path, monkeypatch, has_exchange
):
    """Killed between two files: an entry of the earlier adapter would describe those of both."""
    monkeypatch.setattr(temporaries, "_exchange", temporaries._exchange if has_exchange else no)
    earlier = request_of(Products(("masks", "seg.nrrd")))
    predict(earlier)
    expected = read_labels(tmp_path / "out" / "x.seg.nrrd").array
    other = open_adapters((adapt(request_for("zero-shot"), workspace).adapter,), workspace)

    def killed(file, target):
        if target.suffix == ".nrrd":
            raise KeyboardInterrupt
        temporaries.move_into_place(file, target)

    with monkeypatch.context() as patch:
        patch.setattr(index, "move_into_place", killed)
        with pytest.raises(KeyboardInterrupt):
            predict(replace(earlier, adapters=other))
    assert predict(earlier).segmented == ["x"]
    np.testing.assert_array_equal(read_labels(tmp_path / "out" / "x.seg.nrrd").array, expected)
    for name, value in LABELS.items():
        mask = read_labels(tmp_path / "out" / "x" / "segmentations" / f"{name}.nii.gz").array
        np.testing.assert_array_equal(mask, expected == value)
    assert not [path for path in (tmp_path / "out").iterdir() if path.name in ("old", "new")]


def test_a_format_that_needs_a_series_is_refused_before_any_work(request_of, tmp_path):
    pytest.importorskip("highdicom")
    with pytest.raises(FseftError, match=r"case x, .*refers to a DICOM series.*seg\.nrrd"):
        predict(request_of(Products(("dicom-seg",))))
    with pytest.raises(FseftError, match="unknown format 'nift'"):
        predict(request_of(Products(("nift",))))
    assert not (tmp_path / "out").exists()


def test_the_report_names_files_digests_times_and_failures(request_of, tmp_path):
    (tmp_path / "in" / "bad.nii.gz").write_bytes(b"no image")
    with pytest.raises(FseftError):
        predict(request_of(Products(), report=tmp_path / "run.json", device="auto"))
    report = json.loads((tmp_path / "run.json").read_text())
    good, bad = report["cases"]["x"], report["cases"]["bad"]
    assert (good["outcome"], bad["outcome"]) == ("segmented", "failed")
    assert good["seconds"] > 0
    assert good["outputs"] == {
        str(tmp_path / "out" / "x.nii.gz"): file_digest(tmp_path / "out" / "x.nii.gz")
    }
    assert "bad.nii.gz" in bad["error"]
    assert report["adapters"][0]["model"] == "tiny"
    assert {"fseft", "torch", "python"} <= report["versions"].keys()
    assert report["device"] == select_device("auto")
    unstated = {"adapters", "cleaning", "products", "report", "device", "scans"}
    asked = {field.name for field in fields(PredictRequest)} - unstated
    assert asked <= report["options"].keys()


def test_an_index_cannot_remove_files_outside_its_folder(request_of, tmp_path):
    predict(request_of(Products()))
    path = tmp_path / "out" / "predictions.json"
    (tmp_path / "keep.txt").touch()
    index = json.loads(path.read_text())
    index["cases"]["x"]["files"].append("../keep.txt")
    path.write_text(json.dumps(index))
    with pytest.raises(FseftError, match="not a valid index"):
        predict(request_of(Products(), tta=False, structures=("tumour",)))
    assert (tmp_path / "keep.txt").exists()


@pytest.mark.full  # trains, and reads a series
@pytest.mark.real
def test_a_real_series_is_written_in_all_formats(real_data, blobs, workspace, tmp_path):
    adapter = api.adapt(blobs, "tiny", "linear-probe", k=2, epochs=2, workspace=workspace)
    formats = ("nifti", "masks", "seg.nrrd", "dicom-seg", "rtstruct")
    series = real_data / "dicom_ct" / "straight"
    api.predict(series, adapter, tmp_path / "out", formats=formats, statistics=True, preview=True)
    assert {"straight.seg.dcm", "straight.rtstruct.dcm"} <= files(tmp_path / "out")
    tilted = real_data / "dicom_ct" / "tilted_uneven"
    with pytest.raises(FseftError, match=r"unevenly spaced.*resample"):
        api.predict(tilted, adapter, tmp_path / "tilted", formats=("dicom-seg",))


def test_labels_are_read_again_for_products_of_a_label_map_that_somebody_changed(
    request_of, tmp_path
):
    predict(request_of(Products()))
    path = tmp_path / "out" / "x.nii.gz"
    labels = read_labels(path)
    write_labels(path, np.zeros(labels.array.shape[1:], np.uint8), labels.geometry)
    predict(request_of())  # the digest differs: segmented again
    np.testing.assert_array_equal(read_labels(path).array, labels.array)
