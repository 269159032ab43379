"""Predicting: on the scan's own grid, with the labels of the training data, each scan once."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from fseft import api
from fseft.errors import FseftError
from fseft.experiment.callbacks import Callbacks
from fseft.inference import segment_case as step
from fseft.inference.adapter_groups import open_adapters
from fseft.inference.index import PredictionIndex, read_index
from fseft.inference.request import PredictRequest
from fseft.inference.run import _Prediction, predict
from fseft.inference.scan_files import gather_scans
from fseft.model_zoo.adapter_file import change_manifest, read_manifest
from fseft.schemas import PredictedCase
from fseft.volume.components import Cleaning
from fseft.volume.geometry import Geometry, geometry_mismatch, reorient
from fseft.volume.image import read_labels, read_volume, write_labels, write_volume
from fseft.workspace import file_digest
from tests.sample_data import LABELS, a_scan, adapt, write_model

OBLIQUE = np.array([[0.8, -0.6, 0, 0], [0.6, 0.8, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


def scan_files(folder, *names, affine=None, shape=(30, 34, 38)):
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names):
        geometry = Geometry(shape, np.diag([1.5, 1.5, 1.5, 1]) if affine is None else affine)
        write_volume(folder / f"{name}.nii.gz", a_scan(seed, shape)[0], geometry)
    return folder


@pytest.fixture
def adapter(request_for, workspace):
    return adapt(request_for(), workspace).adapter


@pytest.fixture
def request_of(adapter, workspace, tmp_path):
    def make(*inputs, adapters=(adapter,), **changed):
        opened = open_adapters(adapters, workspace)
        return replace(PredictRequest(inputs, tmp_path / "out", opened), **changed)

    return make


def copying(monkeypatch):
    """Replaces the network by a threshold: tissue brighter than 100 HU is a kidney, 300
    a tumour.
    """

    def scores(network, prepared, manifest, **_):
        image = prepared.image[0].astype(np.float32)
        yield np.stack([np.full_like(image, 100), image, 3 * (image - 200)])

    monkeypatch.setattr(step, "predict_slabs", scores)


def expected(image):
    return np.where(image > 300, 7, np.where(image > 100, 1, 0))


@pytest.mark.parametrize("order", [(), ("Left kidney", "tumour"), ("tumour", "Left kidney")])
def test_overlapping_structures_are_written_in_the_order_of_the_adapter(
    order, request_of, tmp_path, monkeypatch
):
    """The kidney's logit is the highest everywhere, also in its tumour."""

    def scores(network, prepared, manifest, **_):
        image = prepared.image[0].astype(np.float32)
        yield np.stack([np.zeros_like(image), np.full_like(image, 900), image - 300])

    monkeypatch.setattr(step, "predict_slabs", scores)
    request = request_of(scan_files(tmp_path / "in", "x"), probabilities=True)
    (adapter,) = request.adapters
    manifest = adapter.manifest.model_copy(update={"writing_order": order})
    predict(replace(request, adapters=(replace(adapter, manifest=manifest),)))
    image = read_volume(tmp_path / "in" / "x.nii.gz").array[0]
    found = read_labels(tmp_path / "out" / "x.nii.gz").array[0]
    tumour = 7 if order[-1:] == ("tumour",) else 1
    body = image > -500
    np.testing.assert_array_equal(found[body], np.where(image > 300, tumour, 1)[body])
    kidney = read_volume(tmp_path / "out" / "probabilities" / "x.nii.gz", channels=3).array[1]
    assert (kidney[body] > 0.99).all()


# --- grid of the result ---------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["RAS", "LPS", "SPL", "AIR", "PSR"])
def test_a_network_that_copies_its_input_gives_back_the_same_voxels(
    code, request_of, workspace, tmp_path, monkeypatch
):
    copying(monkeypatch)
    image, _ = a_scan(3, (30, 34, 38))
    geometry = Geometry((30, 34, 38), OBLIQUE @ np.diag([1.5, 1.5, 1.5, 1]) + 7 * np.eye(4, k=3))
    image, geometry = reorient(image, geometry, code)
    (tmp_path / "in").mkdir()
    write_volume(tmp_path / "in" / "x.nii.gz", image, geometry)
    predict(request_of(tmp_path / "in"))
    scan, found = (
        read_volume(tmp_path / "in" / "x.nii.gz"),
        read_labels(tmp_path / "out" / "x.nii.gz"),
    )
    np.testing.assert_array_equal(found.array[0], expected(scan.array[0]))
    assert set(np.unique(found.array)) == {0, 1, 7}
    assert geometry_mismatch(found.geometry, scan.geometry) is None


def test_another_spacing_is_undone_too(request_of, workspace, tmp_path, monkeypatch):
    copying(monkeypatch)
    scan_files(tmp_path / "in", "x", affine=np.diag([1.0, 1.3, 2.0, 1]), shape=(36, 34, 32))
    predict(request_of(tmp_path / "in"))
    scan, found = (
        read_volume(tmp_path / "in" / "x.nii.gz"),
        read_labels(tmp_path / "out" / "x.nii.gz"),
    )
    assert geometry_mismatch(found.geometry, scan.geometry) is None
    assert np.mean(found.array[0] == expected(scan.array[0])) > 0.98


def test_the_mask_of_a_tilted_gantry_is_on_the_grid_of_its_scan(request_of, tmp_path, monkeypatch):
    copying(monkeypatch)
    (tmp_path / "in").mkdir()
    sform = np.diag([1.5, 1.5, 3, 1.0])
    sform[1, 2] = 1.0  # 18 degrees
    image = a_scan(3, (38, 34, 30))[0][0]
    scan = nib.Nifti1Image(image, sform)
    scan.set_sform(sform, 2)
    scan.set_qform(None, 0)
    nib.save(scan, tmp_path / "in" / "x.nii.gz")
    predict(request_of(tmp_path / "in", probabilities=True))
    for name in ("x.nii.gz", "probabilities/x.nii.gz"):
        mask = nib.load(tmp_path / "out" / name)
        np.testing.assert_array_equal(mask.affine, nib.load(tmp_path / "in" / "x.nii.gz").affine)
        assert mask.shape[:3] == image.shape
    found = np.asarray(nib.load(tmp_path / "out" / "x.nii.gz").dataobj)
    assert np.mean(found == expected(image)) > 0.98
    for value in (1, 7):
        both = 2 * ((found == value) & (expected(image) == value)).sum()
        assert both / ((found == value).sum() + (expected(image) == value).sum()) > 0.8


def test_segmentation_and_probabilities_have_the_header_space_of_the_scan(
    request_of, workspace, tmp_path
):
    """Here a form that programs ignore, so that each assumes what it likes, for all files alike."""
    (tmp_path / "in").mkdir()
    scan = nib.Nifti1Image(a_scan()[0][0].T, np.diag([-1.5, -1.5, 1.5, 1.0]))
    scan.set_sform(scan.affine, 0)
    scan.set_qform(None, 0)
    nib.save(scan, tmp_path / "in" / "x.nii.gz")
    predict(request_of(tmp_path / "in", probabilities=True))
    original = nib.load(tmp_path / "in" / "x.nii.gz")
    for name in ("x.nii.gz", "probabilities/x.nii.gz"):
        mask = nib.load(tmp_path / "out" / name)
        np.testing.assert_array_equal(mask.affine, original.affine)
        assert (mask.header["qform_code"], mask.header["sform_code"]) == (0, 0)


def test_the_labels_are_those_of_the_training_data(request_of, workspace, tmp_path):
    scan_files(tmp_path / "in", "x")
    predict(request_of(tmp_path / "in"))
    assert set(np.unique(read_labels(tmp_path / "out" / "x.nii.gz").array)) <= {0, *LABELS.values()}
    assert json.loads((tmp_path / "out" / "predictions.json").read_text())["labels"] == LABELS


def test_probabilities_sum_to_one_inside_the_body_and_agree_with_the_labels(
    request_of, workspace, tmp_path
):
    scan_files(tmp_path / "in", "x")
    predict(request_of(tmp_path / "in", probabilities=True))
    probabilities = read_volume(tmp_path / "out" / "probabilities" / "x.nii.gz").array
    found = read_labels(tmp_path / "out" / "x.nii.gz").array[0]
    assert probabilities.shape == (3, *found.shape)
    inside = (slice(1, -1),) * 3
    np.testing.assert_allclose(probabilities.sum(0)[inside], 1, atol=1e-4)
    strongest = np.array([0, 1, 7])[probabilities.argmax(0)]
    assert np.mean(strongest[inside] == found[inside]) > 0.99


def test_mirrored_copies_are_averaged_if_the_adapter_was_trained_with_mirroring(
    request_of, request_for, workspace, tmp_path, monkeypatch
):
    asked = []
    monkeypatch.setattr(
        step,
        "sliding_window_slabs",
        lambda *_, mirror_axes, **__: asked.append(mirror_axes) or [np.zeros((2, 28, 32, 36))],
    )
    scan_files(tmp_path / "in", "x")
    learned = request_for(labels=("tumour",), settings=("mirror=true",), output=tmp_path / "run")
    request = request_of(tmp_path / "in", adapters=(adapt(learned, workspace).adapter,))
    predict(request)
    predict(replace(request, tta=True))
    assert asked == [(), (0, 1, 2)]


def test_mirrored_copies_are_refused_for_an_adapter_that_was_trained_without(
    request_of, workspace, tmp_path
):
    scan_files(tmp_path / "in", "x")
    with pytest.raises(FseftError, match=r"trained with mirroring.*a left and a right"):
        predict(request_of(tmp_path / "in", tta=True))


def test_probabilities_of_an_earlier_prediction_do_not_stay(request_of, workspace, tmp_path):
    scan_files(tmp_path / "in", "x")
    predict(request_of(tmp_path / "in", probabilities=True))
    predict(request_of(tmp_path / "in"))
    assert not (tmp_path / "out" / "probabilities" / "x.nii.gz").exists()


# --- which scans ----------------------------------------------------------------------------------


def test_scans_done_before_are_skipped_until_something_changes(request_of, workspace, tmp_path):
    scan_files(tmp_path / "in", "x", "y")
    request = request_of(tmp_path / "in")
    assert predict(request).segmented == ["x", "y"]
    assert predict(request).skipped == ["x", "y"]
    write_volume(tmp_path / "in" / "y.nii.gz", a_scan(9)[0], Geometry((32, 32, 32), np.eye(4)))
    (tmp_path / "out" / "x.nii.gz").unlink()
    assert predict(request).segmented == ["x", "y"]
    with_probabilities = replace(request, probabilities=True)
    assert predict(with_probabilities).segmented == ["x", "y"]
    (tmp_path / "out" / "probabilities" / "x.nii.gz").unlink()
    assert predict(with_probabilities).segmented == ["x"]


def test_scans_are_segmented_again_for_another_adapter(
    request_of, request_for, workspace, tmp_path
):
    scan_files(tmp_path / "in", "x")
    predict(request_of(tmp_path / "in"))
    other = adapt(request_for("zero-shot"), workspace).adapter
    assert predict(request_of(tmp_path / "in", adapters=(other,))).segmented == ["x"]


def test_a_broken_scan_does_not_prevent_the_segmentation_of_the_others(
    request_of, workspace, tmp_path, caplog
):
    scan_files(tmp_path / "in", "a", "c")
    (tmp_path / "in" / "b.nii.gz").write_bytes(b"no image")
    observer = Observer()
    with pytest.raises(
        FseftError, match=r"b\.nii\.gz: 1 of 3 scans failed \(b\), the others are segmented"
    ):
        predict(request_of(tmp_path / "in"), observer)
    assert observer.cases == ["a", "b", "c"]
    assert any(line.startswith("case b, ") for line in caplog.messages)
    assert {path.name for path in (tmp_path / "out").glob("[!.]*")} == {
        "a.nii.gz",
        "c.nii.gz",
        "predictions.json",
    }


def test_several_broken_scans_are_counted(request_of, workspace, tmp_path):
    scan_files(tmp_path / "in", "d")
    for name in "abc":
        (tmp_path / "in" / f"{name}.nii.gz").write_bytes(b"no image")
    with pytest.raises(FseftError, match=r"3 of 4 scans failed \(a, b, c\)"):
        predict(request_of(tmp_path / "in"))
    assert (tmp_path / "out" / "d.nii.gz").exists()


def test_the_run_folder_is_accepted_instead_of_the_adapter_in_it(
    request_of, workspace, tmp_path, adapter
):
    scan_files(tmp_path / "in", "x")
    assert predict(
        request_of(tmp_path / "in" / "x.nii.gz", adapters=(adapter.parent,))
    ).segmented == ["x"]


def test_an_adapter_for_other_weights_is_refused(request_of, workspace, tmp_path):
    scan_files(tmp_path / "in", "x")
    write_model(workspace, seed=8)
    with pytest.raises(FseftError, match="another backbone"):
        predict(request_of(tmp_path / "in"))
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_is_refused_where_there_is_none(request_of, workspace, tmp_path):
    scan_files(tmp_path / "in", "x")
    with pytest.raises(FseftError, match="has no CUDA"):
        predict(request_of(tmp_path / "in", device="cuda"))


def test_segmentations_never_lie_among_the_scans(request_of, workspace, tmp_path):
    folder = scan_files(tmp_path / "in", "x")
    before = (folder / "x.nii.gz").read_bytes()
    for path in (folder, folder / "x.nii.gz"):
        with pytest.raises(FseftError, match="is also an input folder"):
            predict(request_of(path, output=folder))
    assert (folder / "x.nii.gz").read_bytes() == before


@pytest.mark.real
def test_a_dicom_series_is_segmented_on_its_own_grid(request_of, workspace, tmp_path, real_data):
    series = real_data / "dicom_ct" / "straight"
    assert predict(request_of(series)).segmented == ["straight"]
    found = read_labels(tmp_path / "out" / "straight.nii.gz")
    assert geometry_mismatch(found.geometry, read_volume(series).geometry) is None


# --- gathering ------------------------------------------------------------------------------------


class Observer(Callbacks):
    """Keeps the names of the scans that were tried."""

    def __init__(self):
        self.cases = []

    def progress(self, description, total):  # noqa: ARG002
        return nullcontext(self.cases.append)


def touched(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def names_of(scans):
    return {name: [path.name for path in paths] for name, paths in scans.items()}


def test_files_and_folders_of_files_are_gathered(tmp_path):
    touched(tmp_path, "in/b.nrrd", "in/a.nii.gz", "in/.hidden.nii", "in/notes.txt", "c.mha")
    assert names_of(gather_scans([tmp_path / "in", tmp_path / "c.mha"], ["CT"])) == {
        "a": ["a.nii.gz"],
        "b": ["b.nrrd"],
        "c": ["c.mha"],
    }


def test_channels_are_grouped_by_their_suffix_in_order(tmp_path):
    touched(tmp_path, "z/p_0000.nii.gz", "y/p_0001.nii.gz", "y/q_0001.nii.gz", "y/q_0000.nii.gz")
    assert names_of(gather_scans([tmp_path / "z", tmp_path / "y"], ["T1", "T2"])) == {
        "p": ["p_0000.nii.gz", "p_0001.nii.gz"],
        "q": ["q_0000.nii.gz", "q_0001.nii.gz"],
    }


def test_the_suffix_of_a_single_channel_is_left_off(tmp_path):
    touched(tmp_path, "p_0000.nii.gz", "q_0000.nii.gz")
    assert set(gather_scans([tmp_path], ["CT"])) == {"p", "q"}


def test_numbered_scans_of_one_channel_are_separate_scans(tmp_path):
    touched(tmp_path, *(f"scan_{number:04}.nii.gz" for number in range(3)))
    assert set(gather_scans([tmp_path], ["CT"])) == {"scan_0000", "scan_0001", "scan_0002"}


def test_files_with_all_channels_need_no_suffix(tmp_path):
    touched(tmp_path, "p.nii.gz", "q.nii.gz")
    assert names_of(gather_scans([tmp_path], ["T1", "T2"])) == {
        "p": ["p.nii.gz"],
        "q": ["q.nii.gz"],
    }


@pytest.mark.parametrize(
    ("files", "channels", "message"),
    [
        (["a/p.nii.gz", "b/p.nii.gz"], 1, "case p.*2 files with the same name, expected 1"),
        (["a/p_0000.nii.gz", "b/p_0000.nii.gz"], 2, r"case p.*has no channel T2 \(_0001\)"),
        (
            ["a/p_0000.nii.gz", "b/p_0000.nii.gz", "a/p_0001.nii.gz"],
            2,
            "3 files with the same name, expected 2",
        ),
        (
            ["a/p_0000.nii.gz", "a/p_0001.nii.gz", "a/q_0001.nii.gz"],
            2,
            r"case q.*has no channel T1 \(_0000\)",
        ),
        (["a/notes.txt"], 1, "no scan was found"),
    ],
)
def test_an_invalid_set_of_scans_is_refused(files, channels, message, tmp_path):
    touched(tmp_path, *files)
    with pytest.raises(FseftError, match=message):
        gather_scans(
            sorted({tmp_path / file.split("/")[0] for file in files}), ["T1", "T2"][:channels]
        )


def test_a_missing_input_is_named(tmp_path):
    with pytest.raises(FseftError, match=r"nowhere\.nii: the file or folder does not exist"):
        gather_scans([tmp_path / "nowhere.nii"], ["CT"])


def test_several_channels_travel_from_the_dataset_to_the_prediction(
    workspace, tmp_path, request_for
):
    """Trained from random weights on two channels, the second of which shows the structure."""
    folder = tmp_path / "two"
    for name in ("imagesTr", "labelsTr", "scans"):
        (folder / name).mkdir(parents=True)
    declared = {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "node": 3},
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(declared))
    geometry = Geometry((32, 32, 32), np.diag([1.5, 1.5, 1.5, 1]))
    for seed in range(2):
        image, label = a_scan(seed)
        for channel in range(2):
            for kind in ("imagesTr", "scans"):
                write_volume(
                    folder / kind / f"c{seed}_000{channel}.nii.gz",
                    image + np.int16(1000 + channel),
                    geometry,
                )
        write_labels(folder / "labelsTr" / f"c{seed}.nii.gz", 3 * (label == 1), geometry)
    request = request_for("scratch", dataset=folder, model="none", k=1, settings=("epochs=1",))
    adapter = adapt(request, workspace).adapter
    assert read_manifest(adapter).channels == ("T1", "T2")
    result = predict(
        PredictRequest((folder / "scans",), tmp_path / "out", open_adapters((adapter,), workspace))
    )
    assert result.segmented == ["c0", "c1"]
    assert geometry_mismatch(read_labels(tmp_path / "out" / "c0.nii.gz").geometry, geometry) is None


def test_a_folder_with_predictions_of_other_structures_is_refused(
    request_of, request_for, workspace, tmp_path
):
    folder = scan_files(tmp_path / "in", "x")
    predict(request_of(folder))
    other = adapt(request_for(labels=("tumour",), overwrite=True), workspace).adapter
    with pytest.raises(
        FseftError, match=r"predictions\.json: holds predictions of other structures \(Left kidney"
    ):
        predict(request_of(folder, adapters=(other,)))


def test_the_current_folder_has_the_name_of_its_folder(
    request_of, workspace, tmp_path, monkeypatch
):
    monkeypatch.chdir(scan_files(tmp_path / "in", "x"))
    assert set(gather_scans([Path()], ["CT"])) == {"x"}
    (tmp_path / "in" / "x.nii.gz").rename(tmp_path / "in" / "Y.NII.GZ")
    assert set(gather_scans([Path()], ["CT"])) == {"Y"}


# --- warnings -------------------------------------------------------------------------------------


@pytest.fixture
def warnings_of(workspace, caplog):
    def run(request):
        caplog.clear()
        predict(request)
        return list(caplog.messages)

    return run


def test_a_training_scan_of_the_adapter_is_reported_and_marked_in_the_index(
    request_of, warnings_of, tmp_path, blobs, adapter
):
    seen, unseen = read_manifest(adapter).support[0], "fresh"
    folder = scan_files(tmp_path / "in", unseen)
    (folder / "renamed.nii.gz").write_bytes(
        (blobs / "imagesTr" / f"{seen}_0000.nii.gz").read_bytes()
    )
    messages = warnings_of(request_of(folder))
    assert [line for line in messages if "was trained on" in line] == [
        "the adapter was trained on renamed: scores on it say nothing about new scans"
    ]
    cases = read_index(tmp_path / "out" / "predictions.json").cases
    assert {name: case.seen for name, case in cases.items()} == {"fresh": False, "renamed": True}


def test_predictions_of_another_adapter_in_the_folder_are_reported(
    request_of, request_for, workspace, tmp_path, warnings_of
):
    scan_files(tmp_path / "first", "x", "y")
    scan_files(tmp_path / "second", "y", "z")
    predict(request_of(tmp_path / "first"))
    other = adapt(request_for("zero-shot"), workspace).adapter
    (tmp_path / "out" / "metrics.json").touch()
    messages = warnings_of(request_of(tmp_path / "second", adapters=(other,)))
    assert any("keeps 1 prediction of another adapter (x)" in line for line in messages)
    assert any("replaces 1 prediction of another adapter (y)" in line for line in messages)
    assert any("metrics.json: computed from previous predictions" in line for line in messages)
    index = read_index(tmp_path / "out" / "predictions.json")
    assert len(index.adapters) == 2
    assert index.cases["y"].adapter == index.cases["z"].adapter != index.cases["x"].adapter


def test_scans_unlike_the_training_scans_are_named_before_they_are_segmented(
    request_of, tmp_path, caplog, monkeypatch
):
    scans = scan_files(tmp_path / "scans", "usual")
    scan_files(tmp_path / "scans", "wide", "wider", affine=np.diag([9, 9, 9, 1]))
    copying(monkeypatch)
    segmented, predict_slabs = [], step.predict_slabs

    def record(*arguments, **options):
        segmented.append([text for text in caplog.messages if "training scans" in text])
        return predict_slabs(*arguments, **options)

    monkeypatch.setattr(step, "predict_slabs", record)
    predict(request_of(scans))
    usual, wide, wider = segmented
    assert usual == []
    assert wide == wider
    assert len(wide) == 2
    assert all(text.startswith("wide: the ") for text in wide)
    unlike = [text for text in caplog.messages if "training scans" in text]
    assert len(unlike) == 4
    assert all(text.startswith("wide, wider: the ") for text in unlike[2:])


def test_a_label_map_passed_as_a_scan_is_reported(request_of, warnings_of, tmp_path):
    (tmp_path / "in").mkdir()
    write_volume(tmp_path / "in" / "x.nii.gz", a_scan()[1][None], Geometry((32, 32, 32), np.eye(4)))
    messages = warnings_of(request_of(tmp_path / "in"))
    assert any(
        "case x" in line and "3 different values, as a label map does" in line for line in messages
    )
    assert any("no value is below -500" in line for line in messages)


def test_a_folder_with_scans_further_below_names_the_first(tmp_path):
    touched(tmp_path, "patients/p1/ct/a.nii.gz", "patients/p2/ct/a.nii.gz")
    with pytest.raises(FseftError, match=r"no scan was found.*Pass .*patients/p1/ct\."):
        gather_scans([tmp_path / "patients"], ["CT"])


def test_skipped_folders_are_named(tmp_path, caplog):
    touched(tmp_path, "scans/a.nii.gz", "scans/more/b.nii.gz")
    assert set(gather_scans([tmp_path / "scans"], ["CT"])) == {"a"}
    assert "skipped more, which" in caplog.messages[0]


def test_scans_of_a_format_that_is_not_read_are_named(tmp_path, caplog):
    touched(tmp_path, "scans/b.mhd", "scans/notes.txt")
    with pytest.raises(FseftError, match=r"format that is read \(b\.mhd\).*Supported are"):
        gather_scans([tmp_path / "scans"], ["CT"])
    touched(tmp_path, "scans/a.nii.gz")
    assert set(gather_scans([tmp_path / "scans"], ["CT"])) == {"a"}
    assert "skipped b.mhd" in caplog.messages[0]


def test_an_output_that_cannot_be_written_is_refused_before_any_work(
    request_of, workspace, tmp_path
):
    (tmp_path / "out").touch()
    observer = Observer()
    with pytest.raises(FseftError, match="out: is a file, not a folder"):
        predict(request_of(scan_files(tmp_path / "in", "x", "y")), observer)
    assert observer.cases == []


def test_a_file_that_fseft_did_not_write_is_not_replaced(request_of, workspace, tmp_path):
    scan_files(tmp_path / "in", "x")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x.nii.gz").write_bytes(b"a reference")
    with pytest.raises(FseftError, match=r"x\.nii\.gz: exists and was not written by fseft"):
        predict(request_of(tmp_path / "in"))
    assert (tmp_path / "out" / "x.nii.gz").read_bytes() == b"a reference"


def test_files_are_not_overwritten_if_the_index_is_invalid(request_of, workspace, tmp_path):
    scan_files(tmp_path / "in", "x")
    predict(request_of(tmp_path / "in"))
    (tmp_path / "out" / "predictions.json").write_text(
        '{"labels": {"other": 1}, "cases": {"x": 3}}'
    )
    with pytest.raises(FseftError, match=r"predictions\.json: is not a valid index"):
        predict(request_of(tmp_path / "in"))


def test_a_killed_prediction_resumes(request_of, workspace, tmp_path, monkeypatch):
    scan_files(tmp_path / "in", "x", "y")
    add = PredictionIndex._add

    def killed_after_the_first_file(index, cases):
        if (tmp_path / "out" / "x.nii.gz").exists():
            raise KeyboardInterrupt
        add(index, cases)

    request = request_of(tmp_path / "in")
    with monkeypatch.context() as patch:
        patch.setattr(PredictionIndex, "_add", killed_after_the_first_file)
        with pytest.raises(KeyboardInterrupt):
            predict(request)
    assert predict(request).segmented == ["x", "y"]


def test_two_processes_that_share_a_folder_keep_each_others_entries(tmp_path):
    def entry(key):
        return PredictedCase(key=key, adapter="sha")

    first, second = (PredictionIndex(tmp_path, LABELS, {"sha": "runs/a"}) for _ in range(2))
    first.open({})
    second.open({})
    first.replace("x", entry("1"), {})
    second.replace("y", entry("2"), {})
    first.replace("z", entry("3"), {})
    assert set(read_index(tmp_path / "predictions.json").cases) == {"x", "y", "z"}
    with pytest.raises(FseftError, match="holds predictions of other structures"):
        PredictionIndex(tmp_path, {"liver": 1}, {"sha": "runs/b"}).replace("v", entry("4"), {})


def test_missing_labels_mean_the_same_in_training_and_evaluation(
    blobs, workspace, tmp_path, caplog
):
    options = {"workspace": workspace, "device": "cpu"}
    adapter = api.adapt(
        blobs, "tiny", "linear-probe", k=2, epochs=2, missing_label="unannotated", **options
    )
    api.predict(scan_files(tmp_path / "in", "x"), adapter, tmp_path / "out", **options)
    index = read_index(tmp_path / "out" / "predictions.json")
    assert index.cases["x"].missing_label == "unannotated"
    geometry = Geometry((30, 34, 38), np.diag([1.5, 1.5, 1.5, 1]))
    write_labels(tmp_path / "labels" / "x.nii.gz", a_scan(0, geometry.shape)[1], geometry)
    api.evaluate(tmp_path / "out", tmp_path / "labels", label_values=LABELS)
    assert "not scored in it, as the adapter was trained so" in caplog.text


def test_the_index_names_the_adapter_of_the_file(
    request_of, request_for, workspace, tmp_path, monkeypatch
):
    """Another process segments the same scan while the outcome of this one is recorded."""
    scan_files(tmp_path / "in", "x")
    other = adapt(request_for(seed=1), workspace).adapter
    requests = [request_of(tmp_path / "in", adapters=(other,)), request_of(tmp_path / "in")]
    finish = _Prediction.finish

    def finish_after_another_process(prediction, name, outcome):
        if requests:
            predict(requests.pop(0))
        finish(prediction, name, outcome)

    monkeypatch.setattr(_Prediction, "finish", finish_after_another_process)
    predict(requests.pop())
    entry = read_index(tmp_path / "out" / "predictions.json").cases["x"]
    assert entry.adapter == file_digest(other)
    assert entry.sha256 == file_digest(tmp_path / "out" / "x.nii.gz")


def test_a_damaged_segmentation_is_made_again(request_of, tmp_path):
    scan_files(tmp_path / "in", "x", "y")
    request = request_of(tmp_path / "in")
    predict(request)
    file = tmp_path / "out" / "x.nii.gz"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert predict(request).segmented == ["x"]
    assert file.read_bytes() == content


def test_lack_of_memory_is_one_line_and_does_not_prevent_the_other_scans(
    request_of, workspace, tmp_path, monkeypatch
):
    def small(network, image, **options):
        if image.shape[3] > 40:
            torch.empty(2**50)
        yield np.zeros((3, *image.shape[1:]), np.float32)

    monkeypatch.setattr(step, "sliding_window_slabs", small)
    scan_files(tmp_path / "in", "x")
    scan_files(tmp_path / "large", "y", shape=(30, 34, 60))
    with pytest.raises(
        FseftError, match=r"1 of 2 scans failed \(y\).*does not fit the memory of the computer"
    ):
        predict(request_of(tmp_path / "in", tmp_path / "large"))
    assert (tmp_path / "out" / "x.nii.gz").is_file()


@pytest.mark.full
def test_cases_in_two_processes_give_the_same_files(request_of, workspace, tmp_path):
    request = request_of(scan_files(tmp_path / "in", "x", "y"))
    predict(request)
    result = predict(replace(request, output=tmp_path / "shared", workers=2))
    assert sorted(result.segmented) == ["x", "y"]
    for name in ("x.nii.gz", "y.nii.gz"):
        one, other = (read_labels(tmp_path / folder / name).array for folder in ("out", "shared"))
        np.testing.assert_array_equal(one, other)
    assert read_index(tmp_path / "out/predictions.json") == read_index(
        tmp_path / "shared/predictions.json"
    )


def test_segmentations_of_slicer_next_to_scans_are_not_scans(tmp_path, caplog):
    for name in ("x.nrrd", "x.seg.nrrd"):
        (tmp_path / name).touch()
    assert gather_scans([tmp_path], ["CT"]) == {"x": (tmp_path / "x.nrrd",)}
    assert "skipped x.seg.nrrd" in caplog.text
    assert list(gather_scans([tmp_path / "x.seg.nrrd"], ["CT"])) == ["x"]


# --- structures and cleaning ----------------------------------------------------------------------


def test_only_the_named_structures_are_written_as_in_the_full_result(
    request_of, tmp_path, monkeypatch
):
    copying(monkeypatch)
    scan_files(tmp_path / "in", "x")
    predict(request_of(tmp_path / "in"))
    predict(request_of(tmp_path / "in", structures=("tumour",), output=tmp_path / "one"))
    everything = read_labels(tmp_path / "out" / "x.nii.gz").array
    one = read_labels(tmp_path / "one" / "x.nii.gz").array
    np.testing.assert_array_equal(one, everything * (everything == 7))
    assert read_index(tmp_path / "one" / "predictions.json").labels == {"tumour": 7}


@pytest.fixture
def single_adapters(request_for, workspace, tmp_path, monkeypatch):
    """One adapter per structure; both have its value 1, and claim the rows in the middle."""
    adapters = []
    for name in LABELS:
        request = request_for(labels=(name,), output=tmp_path / name)
        adapter = adapt(request, workspace).adapter
        change_manifest(adapter, labels={name: 1})
        adapters.append(adapter)

    def scores(network, prepared, manifest, **_):
        logits = np.zeros((4, *prepared.image.shape[1:]), np.float32)
        logits[1, :20], logits[3, 10:] = 5, 9
        yield logits

    monkeypatch.setattr(step, "predict_slabs", scores)
    return tuple(adapters)


@pytest.mark.parametrize("overlap", ["probability", "first"])
@pytest.mark.parametrize("structure", LABELS)
def test_a_named_structure_has_the_voxels_and_the_value_of_the_full_result_of_several_adapters(
    overlap, structure, single_adapters, request_of, tmp_path
):
    """The other adapters compete for its voxels, also those that do not predict it."""
    scan_files(tmp_path / "in", "x")
    options = {"adapters": single_adapters, "overlap": overlap}
    predict(request_of(tmp_path / "in", **options))
    predict(
        request_of(tmp_path / "in", structures=(structure,), output=tmp_path / "part", **options)
    )
    whole, part = (read_labels(tmp_path / name / "x.nii.gz").array for name in ("out", "part"))
    value = read_index(tmp_path / "out" / "predictions.json").labels[structure]
    assert read_index(tmp_path / "part" / "predictions.json").labels == {structure: value}
    assert set(np.unique(whole)) == {0, 1, 2}
    np.testing.assert_array_equal(part, whole * (whole == value))


def test_in_separate_folders_an_adapter_without_a_named_structure_does_not_run(
    single_adapters, request_of, tmp_path
):
    scan_files(tmp_path / "in", "x")
    options = {"adapters": single_adapters, "overlap": "separate", "structures": ("tumour",)}
    predict(request_of(tmp_path / "in", **options))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["tumour"]


def test_a_structure_that_no_adapter_predicts_is_refused_by_name(request_of, tmp_path):
    scan_files(tmp_path / "in", "x")
    for wrong in (
        {"structures": ("tumor",)},
        {"cleaning": Cleaning(largest_component=("tumor",))},
        {"structures": ("all",)},
    ):
        with pytest.raises(FseftError, match=r"no adapter predicts .*(tumour|Left kidney)"):
            predict(request_of(tmp_path / "in", **wrong))
    assert not (tmp_path / "out").exists()


def test_cleaning_changes_the_label_map_and_repeats_the_segmentation(
    request_of, tmp_path, monkeypatch
):
    copying(monkeypatch)
    image, _ = a_scan(0)
    image[0, 20, 20, 20] = 250  # an island of the kidney
    (tmp_path / "in").mkdir()
    geometry = Geometry(image.shape[1:], np.diag([1.5, 1.5, 1.5, 1]))
    write_volume(tmp_path / "in" / "x.nii.gz", image, geometry)
    predict(request_of(tmp_path / "in"))
    assert read_labels(tmp_path / "out" / "x.nii.gz").array[0, 20, 20, 20] == 1
    clean = request_of(tmp_path / "in", cleaning=Cleaning(largest_component=("Left kidney",)))
    assert predict(clean).segmented == ["x"]
    assert read_labels(tmp_path / "out" / "x.nii.gz").array[0, 20, 20, 20] == 0
    assert predict(clean).skipped == ["x"]


def test_windows_that_overlap_less_are_fewer_and_a_new_prediction(
    request_of, workspace, tmp_path, monkeypatch
):
    overlaps = []

    def noted(network, image, *, overlap, **options):
        overlaps.append(overlap)
        yield np.zeros((3, *image.shape[1:]), np.float32)

    monkeypatch.setattr(step, "sliding_window_slabs", noted)
    scan_files(tmp_path / "in", "x")
    for overlap in (0.5, 0.25, 0.25):
        predict(replace(request_of(tmp_path / "in"), window_overlap=overlap))
    assert overlaps == [0.5, 0.25]
    with pytest.raises(FseftError, match="overlap by a fraction of 1"):
        predict(replace(request_of(tmp_path / "in"), window_overlap=1))
