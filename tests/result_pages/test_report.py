"""A report is one page with scores, pictures, volumes and the training, and refuses other folders."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from fseft import api
from fseft.errors import FseftError
from fseft.reporting.figures import PREDICTION, REFERENCE
from fseft.schemas import PredictedCase, Predictions
from fseft.volume.geometry import Geometry
from fseft.volume.image import write_labels, write_volume
from fseft.workspace import file_digest, read_document, write_document
from tests.sample_data import adapt

SHAPE = (12, 24, 20)
GRID = Geometry(SHAPE, np.diag([3.0, 1.0, 1.0, 1.0]))
LABELS = {"liver": 1, "spleen": 2}
HOSTILE = "<script>alert(1)</script>\x1b[31m"


def organs(shift=0):
    """Two boxes; `shift` moves one of them."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[3:9, 4 + shift : 12 + shift, 4:12], labels[4:8, 16:20, 14:18] = 1, 2
    return labels


def scan():
    voxels = np.full((1, *SHAPE), -1000, np.int16)
    voxels[:, 1:-1, 1:-1, 1:-1] = np.random.default_rng(0).normal(40, 30, [n - 2 for n in SHAPE])
    return voxels


def write_predictions(folder, shifts, labels=LABELS, *, reference=True):
    """Writes scans, predictions with their index, and references; returns the predictions."""
    cases = {}
    for name, shift in shifts.items():
        scan_file = folder / "scans" / f"{name}.nii.gz"
        write_volume(scan_file, scan(), GRID)
        prediction = folder / "segmented" / f"{name}.nii.gz"
        write_labels(prediction, organs(shift), GRID)
        cases[name] = PredictedCase(
            key="k", adapter="a", sha256=file_digest(prediction), scan=(str(scan_file),)
        )
        if reference:
            write_labels(folder / "labels" / f"{name}.nii.gz", organs(), GRID)
    index = Predictions(labels=labels, adapters={"a": "gone.safetensors"}, cases=cases)
    write_document(folder / "segmented" / "predictions.json", index)
    return folder / "segmented"


@pytest.fixture
def predictions(tmp_path):
    return write_predictions(tmp_path, {"good": 0, "poor": 6, "fair": 2})


def page_of(*arguments, **options):
    return api.report(*arguments, **options).page.read_text(encoding="utf-8")


def pictures(html):
    """The pictures of a page as arrays (height, width, 3)."""
    encoded = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data in encoded]


def has_colour(picture, colour):
    return bool((picture == colour).all(axis=2).any())


def test_the_worst_the_median_and_the_best_case_are_shown_in_three_planes(predictions):
    api.evaluate(predictions, predictions.parent / "labels", output=predictions)
    html = page_of(predictions)
    places = [html.index(f"{place}") for place in ("Worst case: poor", "Median case: fair")]
    assert places == sorted(places)
    assert "Best case: good" in html
    assert len(pictures(html)) == 3 * 2 * 3  # cases, comparison and structures, planes
    assert html.count("coronal, ") == 2 * 3 * 2  # alternative text and title


def test_reference_and_prediction_have_different_outlines(predictions):
    html = page_of(predictions, labels=predictions.parent / "labels")
    worst, best = pictures(html)[0], pictures(html)[-6]
    for picture in (worst, best):
        assert has_colour(picture, REFERENCE)
        assert has_colour(picture, PREDICTION)


def test_scores_of_evaluate_are_used_and_the_references_found_again(predictions):
    scores = api.evaluate(predictions, predictions.parent / "labels", output=predictions)
    assert scores.files.references["good"].endswith("labels/good.nii.gz")
    html = page_of(predictions)
    assert f"{scores.mean['dice']:.3f}" in html
    assert "HD95" in html


def test_segmentations_of_slicer_are_shown_too(predictions):
    for file in predictions.glob("*.nii.gz"):
        write_labels(file.with_name(file.name.replace(".nii.gz", ".seg.nrrd")), organs(), GRID)
        file.unlink()
    api.evaluate(predictions, predictions.parent / "labels", output=predictions)
    assert "Best case" in page_of(predictions)


def test_voxels_without_annotation_are_not_shown_as_errors(predictions):
    def missed_pixels():
        """Pixels that are bluer than the grey image, and not as blue as an outline."""
        blueness = [picture[..., 2].astype(int) - picture[..., 0] for picture in pictures(html)[:3]]
        return sum(((pixels > 40) & (pixels < 120)).sum() for pixels in blueness)

    labels = predictions.parent / "labels"
    html = page_of(predictions, labels=labels)
    assert missed_pixels() > 100
    ignored = organs()
    ignored[organs(6) != organs()] = 9  # where the worst case differs
    for file in labels.iterdir():
        write_labels(file, ignored, GRID)
    api.evaluate(predictions, labels, ignore_label=9, output=predictions)
    html = page_of(predictions)
    assert missed_pixels() < 10  # at corners, by interpolation


def test_scores_of_other_predictions_are_not_used(predictions, caplog):
    api.evaluate(predictions, predictions.parent / "labels", output=predictions)
    write_labels(predictions / "good.nii.gz", organs(4), GRID)
    html = page_of(predictions)
    assert "good has changed since; evaluate again" in caplog.text
    assert "Scores by case" not in html


def test_scores_of_references_that_were_edited_since_are_not_used(predictions, caplog):
    labels = predictions.parent / "labels"
    api.evaluate(predictions, labels, output=predictions)
    assert "Scores by case" in page_of(predictions)
    write_labels(labels / "good.nii.gz", organs(4), GRID)
    html = page_of(predictions)
    assert f"the reference {labels / 'good.nii.gz'} has changed since" in caplog.text
    assert "Scores by case" not in html
    assert "Scores by case" in page_of(predictions, labels=labels)  # of the references as they are


def without_digests(path):
    """Makes `metrics.json` one of earlier versions."""
    content = json.loads(path.read_text())
    del content["files"]["reference_sha256"]
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("earlier", [False, True])
def test_scores_of_other_references_are_not_used(predictions, earlier):
    scores = api.evaluate(predictions, predictions.parent / "labels", output=predictions)
    if earlier:
        without_digests(predictions / "metrics.json")
    others = predictions.parent / "others"
    for name in ("good", "poor", "fair"):
        write_labels(others / f"{name}.nii.gz", organs(6), GRID)  # as poor was predicted
    html = page_of(predictions, labels=others)
    expected = api.evaluate(predictions, others, output=predictions.parent / "scores")
    assert expected.mean["dice"] != scores.mean["dice"]
    assert f"{expected.mean['dice']:.3f}" in html
    assert f"{scores.mean['dice']:.3f}" not in html
    assert "Best case: poor" in html


@pytest.mark.parametrize("earlier", [False, True])
def test_scores_of_the_same_references_are_used_again(predictions, earlier, monkeypatch):
    labels = predictions.parent / "labels"
    api.evaluate(predictions, labels, output=predictions)
    if earlier:
        without_digests(predictions / "metrics.json")
    else:
        labels = labels.rename(labels.with_name("moved"))
    monkeypatch.setattr("fseft.result_pages.cases.evaluate", None)
    assert "Scores by case" in page_of(predictions, labels=labels)


def test_without_references_cases_are_ordered_by_volume(predictions):
    html = page_of(predictions)
    assert "Smallest segmentation" in html
    assert "nothing here says how right" in html
    assert "Scores by case" not in html


def test_volumes_are_those_of_the_label_maps(predictions):
    html = page_of(predictions, pictures=False)
    millilitres = 6 * 8 * 8 * 3 / 1000
    assert f"{millilitres:.2f}" in html


def test_an_empty_segmentation_is_shown_as_such(tmp_path):
    folder = write_predictions(tmp_path, {"empty": 0}, reference=False)
    write_labels(folder / "empty.nii.gz", np.zeros(SHAPE, np.uint8), GRID)
    html = page_of(folder)
    assert "Not found in this scan: liver, spleen." in html
    assert len(pictures(html)) == 3


def test_names_are_text_wherever_they_stand(tmp_path):
    name = HOSTILE.replace("/", "-")
    labels = {HOSTILE: 1, "spleen": 2}
    folder = write_predictions(tmp_path, {name: 0, "other": 3}, labels)
    html = page_of(folder, labels=tmp_path / "labels")
    assert "<script" not in html
    assert "\x1b" not in html


def test_scans_that_were_moved_are_found_in_their_new_folder(predictions):
    moved = predictions.parent / "moved"
    (predictions.parent / "scans").rename(moved)
    with pytest.raises(FseftError, match=r"the scan does not exist.*--scans.*--no-pictures"):
        api.report(predictions)
    assert not (predictions / "report.html").exists()
    assert len(pictures(page_of(predictions, scans=moved))) == 9
    assert pictures(page_of(predictions, pictures=False)) == []


def test_a_reference_that_is_gone_is_named(predictions):
    api.evaluate(predictions, predictions.parent / "labels", output=predictions)
    shutil.rmtree(predictions.parent / "labels")
    with pytest.raises(FseftError, match=r"the reference does not exist.*--labels"):
        api.report(predictions)


def test_a_scan_on_another_grid_is_refused(predictions):
    other = Geometry(SHAPE, np.diag([2.0, 1.0, 1.0, 1.0]))
    write_volume(predictions.parent / "scans" / "good.nii.gz", scan(), other)
    with pytest.raises(FseftError, match="is not on the grid of the scan"):
        api.report(predictions)


@pytest.mark.parametrize("content", [None, "{", '{"labels": {"liver": 1}, "cases": {}}'])
def test_a_folder_without_results_is_refused(tmp_path, content):
    folder = tmp_path / "folder"
    folder.mkdir()
    if content is not None:
        (folder / "predictions.json").write_text(content)
    with pytest.raises(FseftError, match=r"contains no|not valid JSON"):
        api.report(folder)
    assert not (folder / "report.html").exists()


def test_a_folder_above_the_results_names_them(predictions):
    with pytest.raises(FseftError, match=r"contains no results.*Did you mean .*segmented"):
        api.report(predictions.parent)


def test_only_a_page_of_fseft_is_replaced(predictions, tmp_path):
    options = {"pictures": False}
    page = api.report(predictions, tmp_path / "page.html", **options).page
    api.report(predictions, page, **options)
    page.write_text("<p>mine</p>")
    with pytest.raises(FseftError, match="not a page of fseft"):
        api.report(predictions, page, **options)
    assert page.read_text() == "<p>mine</p>"
    api.report(predictions, page, overwrite=True, **options)
    assert "Volumes" in page.read_text()


def test_a_run_shows_its_training_its_plan_and_its_command(request_for, workspace):
    run = adapt(request_for(), workspace)
    report = api.report(run.folder)
    html = report.page.read_text(encoding="utf-8")
    assert report.kind == "run"
    assert html.count("<svg") >= 1
    assert f"fseft adapt blobs --config {run.folder}/run.json" in html
    assert "epochs=" in html
    assert run.run.backbone["sha256"] in html
    assert "as the model was trained" in html  # a reason of the plan


def test_a_cross_validated_run_shows_the_cases_of_its_folds(made, workspace, tmp_path):
    adapter = api.adapt(
        made / "blobs",
        "tiny",
        "linear-probe",
        2,
        settings={"epochs": 1, "crops_per_step": 1},
        cross_validate=True,
        output=tmp_path / "run",
        device="cpu",
        workspace=workspace,
    )
    html = page_of(adapter.path.parent)
    assert "95 %" in html
    for case in adapter.manifest.support:
        assert f"case: {case}" in html


def test_a_run_that_is_not_finished_is_refused(request_for, workspace):
    run = adapt(request_for(), workspace)
    unfinished = run.run.model_copy(update={"outcome": "interrupted"})
    write_document(run.folder / "run.json", unfinished)
    with pytest.raises(FseftError, match=r"not finished \(interrupted\)"):
        api.report(run.folder)


@pytest.mark.parametrize("outcome", ["running", "interrupted"])
def test_predictions_are_shown_while_the_run_of_their_adapter_continues(
    request_for, workspace, predictions, outcome
):
    run = adapt(request_for(), workspace)
    path = predictions / "predictions.json"
    index = read_document(path, Predictions)
    adapters = {file_digest(run.adapter): str(run.folder)}
    write_document(path, index.model_copy(update={"adapters": adapters}))
    assert "reason" in page_of(predictions)
    unfinished = run.run.model_copy(update={"outcome": outcome})
    write_document(run.folder / "run.json", unfinished)
    html = page_of(predictions)
    assert f"the run is not finished ({outcome})" in html
    assert file_digest(run.adapter) in html
    assert "Decisions" not in html


def test_a_benchmark_shows_its_tables_and_the_cases_of_the_best_method(made, workspace, tmp_path):
    api.benchmark(
        made / "blobs",
        "tiny",
        ["linear-probe"],
        ks=[1],
        test=["1"],
        output=tmp_path / "bench",
        settings={"epochs": 1, "crops_per_step": 1},
        device="cpu",
        workspace=workspace,
    )
    report = api.report(tmp_path / "bench")
    html = report.page.read_text(encoding="utf-8")
    assert report.kind == "benchmark"
    assert "linear-probe" in html
    assert "versions" in html
    assert len(pictures(html)) in (3, 6)
