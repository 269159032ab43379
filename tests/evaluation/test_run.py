"""Predictions are matched with their labels by case and structure, and scored on the same grid."""

from __future__ import annotations

import csv
import json
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fseft.cli.parsing import parse_tolerance
from fseft.errors import FseftError
from fseft.evaluation.matching import match_files
from fseft.evaluation.run import Evaluation, evaluate, write_evaluation
from fseft.inference.index import METRICS
from fseft.metrics.selection import select_metrics
from fseft.schemas import PredictedCase, Predictions
from fseft.volume.geometry import Geometry, reorient
from fseft.volume.image import write_labels
from fseft.workspace import file_digest, file_lock, read_document, write_document

GRID = Geometry((8, 9, 10), np.diag([2.0, 2.0, 2.0, 1.0]))


def labels(**boxes):
    """Return a label map with a box of 3x3x3 voxels at i for each `v<value>=i`."""
    label_map = np.zeros(GRID.shape, np.uint8)
    for value, at in boxes.items():
        label_map[at : at + 3, 2:5, 2:5] = int(value[1:])
    return label_map


def write(folder, suffix=".nii.gz", grid=GRID, **cases):
    for name, array in cases.items():
        write_labels(folder / f"{name}{suffix}", array, grid)
    return folder


def describe(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"labels": content}))


@pytest.fixture
def sides(tmp_path):
    """The folders of predictions and labels."""
    return tmp_path / "predictions", tmp_path / "data" / "labelsTs"


def score(sides, **options):
    return evaluate(match_files(*sides), **options)


def test_every_format_of_a_prediction_that_can_be_read_meets_its_reference(sides):
    """One case in two formats is scored once; DICOM files are not read."""
    label_map = labels(v1=1)
    write(sides[1], a=label_map, b=label_map, c=label_map)
    write(sides[0], a=label_map, b=label_map)
    write(sides[0], ".seg.nrrd", b=label_map, c=label_map)
    (sides[0] / "c.seg.dcm").touch()
    (sides[0] / "c.rtstruct.dcm").touch()
    cases = {
        "a": PredictedCase(key="1", adapter="x", sha256=file_digest(sides[0] / "a.nii.gz")),
        "b": PredictedCase(
            key="2",
            adapter="x",
            sha256=file_digest(sides[0] / "b.nii.gz"),
            files=("b.nii.gz", "b.seg.nrrd"),
        ),
        "c": PredictedCase(
            key="3", adapter="x", seen=True, files=("c.seg.nrrd", "c.seg.dcm", "c.rtstruct.dcm")
        ),
    }
    index = Predictions(labels={"liver": 1}, adapters={"x": "run"}, cases=cases)
    write_document(sides[0] / "predictions.json", index)
    matched = match_files(*sides)
    found = {case: prediction.name for case, (prediction, _) in matched.cases.items()}
    assert found == {"a": "a.nii.gz", "b": "b.nii.gz", "c": "c.seg.nrrd"}
    assert (matched.training_cases, matched.adapters) == (("c",), {"x": "run"})
    assert (matched.without_label, matched.without_prediction) == ((), ())


def test_a_segmentation_of_slicer_that_was_not_predicted_is_a_second_file(sides):
    write(sides[0], a=labels(v1=1))
    write(sides[0], ".seg.nrrd", a=labels(v1=1))
    write(sides[1], ".seg.nrrd", a=labels(v1=1))
    with pytest.raises(FseftError, match=r"case a, .*second file of its case"):
        match_files(*sides)


# ---- scores


def test_a_perfect_prediction_has_perfect_scores_in_any_file_format(sides):
    write(sides[0], ".nrrd", a=labels(v1=1), b=labels(v1=2))
    write(sides[1], a=labels(v1=1), b=labels(v1=2))
    result = score(sides)
    assert (result.mean["dice"], result.mean["nsd"], result.mean["hd95_mm"]) == (1, 1, 0)
    assert result.classes["class_1"].cases == 2
    assert result.classes["class_1"].mean["volume_difference_ml"] == 0


def test_a_structure_in_neither_is_excluded_from_the_mean_and_counted(sides):
    describe(sides[1].parent / "dataset.json", {"background": 0, "liver": 1, "spleen": 2})
    write(sides[0], a=labels(v1=1), b=labels(v1=1, v2=5))
    write(sides[1], a=labels(v1=1), b=labels(v1=1, v2=5))
    spleen = score(sides).classes["spleen"]
    assert (spleen.mean["dice"], spleen.cases, spleen.both_empty) == (1, 2, 1)


def test_missed_and_false_positive_structures_are_counted_separately(sides):
    write(sides[0], a=labels(v1=1), b=labels(v1=1, v2=5))
    write(sides[1], a=labels(v1=1, v2=5), b=labels(v1=1))
    second = score(sides).classes["class_2"]
    assert (second.mean["dice"], second.missed, second.false_positive) == (0, 1, 1)


def test_the_tolerance_decides_what_nsd_accepts(sides):
    write(sides[0], a=labels(v1=2))
    write(sides[1], a=labels(v1=1))  # shifted by one voxel of 2 mm
    assert score(sides, tolerance_mm=2.0).mean["nsd"] == 1
    strict = score(sides, tolerance_mm=1.0)
    assert strict.mean["nsd"] < 1
    assert strict.tolerance_mm == 1


@pytest.mark.full
def test_several_processes_have_the_same_scores(sides):
    write(sides[0], a=labels(v1=1), b=labels(v1=2))
    write(sides[1], a=labels(v1=2), b=labels(v1=2))
    assert score(sides, workers=2) == score(sides, workers=1)


# ---- names


def test_structures_are_matched_by_name_where_both_sides_name_them(sides):
    describe(sides[0] / "predictions.json", {"spleen": 1, "liver": 2})
    describe(sides[1].parent / "dataset.json", {"background": 0, "liver": 1, "spleen": 7})
    write(sides[0], a=labels(v2=1, v1=5))
    write(sides[1], a=labels(v1=1, v7=5))
    result = score(sides)
    assert {name: summary.mean["dice"] for name, summary in result.classes.items()} == {
        "liver": 1,
        "spleen": 1,
    }


def test_structures_that_the_predictions_cannot_contain_are_listed_as_left_out(sides):
    describe(sides[0] / "predictions.json", {"liver": 1})
    describe(sides[1].parent / "dataset.json", {"background": 0, "liver": 1, "spleen": 2})
    write(sides[0], a=labels(v1=1))
    write(sides[1], a=labels(v1=1, v2=5))
    result = score(sides)
    assert list(result.classes) == ["liver"]
    assert result.left_out == ("spleen",)


def test_a_value_without_a_name_is_left_out_too(sides):
    describe(sides[0] / "predictions.json", {"liver": 1})
    write(sides[0], a=labels(v1=1))
    write(sides[1], a=labels(v1=1, v4=5))
    assert score(sides).left_out == ("class_4",)


def test_a_foreign_table_of_annotations_is_ignored(sides, caplog):
    describe(sides[1].parent / "dataset.json", LIVER_AND_SPLEEN)
    (sides[1].parent / "annotations.csv").write_text("reader;date\nx;y\n")
    write(sides[0], a=labels(v1=1))
    write(sides[1], a=labels(v1=1))
    assert score(sides).mean["dice"] == 1
    assert caplog.text.count("columns case, liver, spleen\n") == 1


LIVER_AND_SPLEEN = {"background": 0, "liver": 1, "spleen": 2}


@pytest.mark.parametrize("place", ["dataset.json", "annotated.json", "annotations.csv"])
def test_a_structure_that_a_case_is_not_listed_to_annotate_is_not_scored(sides, place):
    """The spleen of `a` was not drawn; `b` has none, and that of `c` was drawn, listed or not."""
    data, lists = sides[1].parent, {"a": ["liver"], "c": ["liver"]}
    describe(data / "dataset.json", LIVER_AND_SPLEEN)
    if place == "annotations.csv":
        (data / place).write_text("case,liver,spleen\na,yes,no\nc,yes,no\n")
    elif place == "annotated.json":
        (data / place).write_text(json.dumps(lists))
    else:
        declared = {"labels": LIVER_AND_SPLEEN, "annotated": lists}
        (data / place).write_text(json.dumps(declared))
    both = labels(v1=1, v2=5)
    write(sides[0], a=both, b=both, c=both)
    write(sides[1], a=labels(v1=1), b=labels(v1=1), c=both)
    result = score(sides)
    assert {case: list(scores) for case, scores in result.cases.items()} == {
        "a": ["liver"],
        "b": ["liver", "spleen"],
        "c": ["liver", "spleen"],
    }
    assert (result.classes["liver"].cases, result.classes["spleen"].false_positive) == (3, 1)


def test_a_missing_label_may_mean_that_nobody_annotated_the_structure(sides):
    describe(sides[1].parent / "dataset.json", LIVER_AND_SPLEEN)
    write(sides[0], a=labels(v1=1, v2=5), b=labels(v1=1, v2=5))
    write(sides[1], a=labels(v1=1), b=labels(v1=1, v2=5))
    assert score(sides).classes["spleen"].mean["dice"] == 0.5
    result = evaluate(match_files(*sides, missing_label="unannotated"))
    assert result.classes["spleen"].mean["dice"] == 1
    with pytest.raises(FseftError, match="unknown rule for missing labels 'maybe'"):
        match_files(*sides, missing_label="maybe")


@pytest.mark.parametrize(("given", "dice"), [(None, 1), ("absent", 0.5)])
def test_missing_labels_mean_what_they_meant_in_the_training(sides, given, dice):
    """Unless the user says otherwise."""
    describe(sides[1].parent / "dataset.json", LIVER_AND_SPLEEN)
    write(sides[0], a=labels(v1=1, v2=5), b=labels(v1=1, v2=5))
    write(sides[1], a=labels(v1=1), b=labels(v1=1, v2=5))
    case = PredictedCase(key="k", adapter="a", missing_label="unannotated")
    index = Predictions(labels={"liver": 1, "spleen": 2}, cases={"a": case, "b": case})
    write_document(sides[0] / "predictions.json", index)
    result = evaluate(match_files(*sides, missing_label=given))
    assert result.classes["spleen"].mean["dice"] == dice


def test_an_unknown_structure_in_a_list_is_refused(sides):
    describe(sides[1].parent / "dataset.json", LIVER_AND_SPLEEN)
    (sides[1].parent / "annotations.csv").write_text("case,liver,splen\na,yes,no\n")
    write(sides[0], a=labels(v1=1))
    write(sides[1], a=labels(v1=1))
    with pytest.raises(FseftError, match="unknown structure 'splen'"):
        match_files(*sides)


def regions(sides, values, **references):
    """Predictions of a region and of the part of it that is written later, by other values."""
    describe(sides[0] / "predictions.json", {"other": 2, "whole": 5, "core": 6, **values})
    declared = {"labels": {"whole": [1, 2, 4], "core": [2, 4], **references}}
    order = [1, 2, *(values[-1] for values in references.values())]
    declared["regions_class_order"] = order
    sides[1].parent.mkdir(parents=True)
    (sides[1].parent / "dataset.json").write_text(json.dumps(declared))
    write(sides[0], a=labels(v5=0, v6=3))
    write(sides[1], a=labels(v1=0, v2=3))


@pytest.mark.parametrize("chosen", [(), ("whole",), ("core",)])
def test_regions_are_scored_whole_whatever_values_and_structures_are_chosen(sides, chosen):
    regions(sides, {})
    result = score(sides, structures=chosen)
    assert list(result.classes) == list(chosen or ("whole", "core"))
    assert {summary.mean["dice"] for summary in result.classes.values()} == {1}


def test_a_predicted_value_of_something_else_does_not_belong_to_a_region(sides):
    regions(sides, {"whole": 1, "core": 4})
    write(sides[0], a=labels(v1=0, v4=3) + labels(v2=6)[::-1])
    result = score(sides)
    assert result.classes["core"].mean["dice"] == 1


def test_a_region_that_the_predictions_cannot_contain_is_left_out(sides):
    regions(sides, {}, edge=[4])
    assert score(sides).left_out == ("edge",)


@pytest.mark.parametrize("described", ["data", "elsewhere"])
def test_structures_have_their_names_where_the_folder_of_labels_is_a_link(sides, described):
    predictions, linked = sides
    target = linked.parents[1] / "elsewhere" / "labels"
    describe(linked.parents[1] / described / "dataset.json", {"background": 0, "liver": 1})
    linked.parent.mkdir(exist_ok=True)
    write(predictions, a=labels(v1=1))
    write(target, a=labels(v1=1))
    linked.symlink_to(target)
    assert set(score(sides).classes) == {"liver"}


def test_the_decathlon_maps_values_to_names(sides):
    describe(sides[1].parent / "dataset.json", {"0": "background", "1": "liver"})
    write(sides[0], a=labels(v1=1))
    write(sides[1], a=labels(v1=1))
    assert list(score(sides).classes) == ["liver"]


def test_ignored_voxels_are_excluded_on_both_sides(sides):
    describe(sides[1].parent / "dataset.json", {"background": 0, "liver": 1, "ignore": 2})
    write(sides[0], a=labels(v1=1) + labels(v1=5))
    write(sides[1], a=labels(v1=1) + labels(v2=5))
    result = score(sides)
    assert result.mean["dice"] == 1
    assert (list(result.classes), result.left_out) == (["liver"], ())


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pair=hnp.arrays(np.uint8, (2, 5, 6, 7), elements=st.integers(0, 1)), cut=st.integers(1, 6))
def test_a_metric_with_an_ignore_label_is_that_of_the_rest(sides, pair, cut):
    chosen = {"metrics": select_metrics(["dice", "nsd", "hd95", "assd", "volume_difference"])}

    for folder, array in zip(sides, pair[:, :, :, :cut], strict=True):
        write(folder, grid=Geometry(array.shape, np.diag([2.0, 1.5, 3.0, 1.0])), a=array)
    rest = evaluate(match_files(*sides), workers=1, **chosen) if pair[1, :, :, :cut].any() else None
    pair[1, :, :, cut:] = 9
    for folder, array in zip(sides, pair, strict=True):
        write(folder, grid=Geometry(array.shape, np.diag([2.0, 1.5, 3.0, 1.0])), a=array)
    matched = match_files(*sides, values={"liver": 1}, ignore_label=9)
    (ignoring,) = evaluate(matched, workers=1, **chosen).classes.values()
    # The distance of a miss is the diagonal of the image, which is not that of the rest.
    if rest and not ignoring.missed:
        (expected,) = rest.classes.values()
        assert ignoring.mean == pytest.approx(expected.mean)


def test_slices_without_a_label_are_not_scored_on_request(sides):
    sparse = np.zeros(GRID.shape, np.uint8)
    sparse[1::3, 2:5, 2:5] = 1
    full = np.zeros(GRID.shape, np.uint8)
    full[1:, 2:5, 2:5] = 1
    write(sides[0], a=full)
    write(sides[1], a=sparse)
    assert score(sides).mean["dice"] < 0.7
    assert evaluate(match_files(*sides, annotated_slices="auto")).mean["dice"] == 1


def test_scribbles_score_only_the_voxels_that_they_mark(sides):
    describe(sides[1].parent / "dataset.json", {"background": 3, "liver": 1, "ignore": 0})
    write(sides[0], a=labels(v1=1))
    scribbles = np.zeros(GRID.shape, np.uint8)
    scribbles[2, 3, 3], scribbles[6, 6, 6], scribbles[3, 3, 3] = 1, 3, 3
    write(sides[1], a=scribbles)
    (liver,) = score(sides, metrics=select_metrics(["dice"])).classes.values()
    assert liver.mean["dice"] == pytest.approx(2 / 3)


def test_only_some_structures_can_be_scored(sides):
    write(sides[0], a=labels(v1=1, v2=5))
    write(sides[1], a=labels(v1=1, v2=5))
    result = score(sides, structures=["class_2"])
    assert (list(result.classes), result.left_out) == (["class_2"], ())
    with pytest.raises(FseftError, match=r"unknown structure 'class_3'.*Did you mean"):
        score(sides, structures=["class_3"])


def test_no_structure_in_common_is_an_error(sides):
    describe(sides[0] / "predictions.json", {"liver": 1})
    describe(sides[1].parent / "dataset.json", {"spleen": 1})
    write(sides[0], a=labels(v1=1))
    write(sides[1], a=labels(v1=1))
    with pytest.raises(FseftError, match="predictions liver; labels spleen"):
        score(sides)


@pytest.mark.parametrize("text", ["{", "[]", '{"labels": 3}', '{"labels": {"tumour": [1, 2]}}'])
def test_an_invalid_description_is_refused_with_its_file(sides, text):
    write(sides[0], a=labels(v1=1))
    write(sides[1], a=labels(v1=1))
    (sides[1].parent / "dataset.json").write_text(text)
    with pytest.raises(FseftError, match=r"dataset\.json"):
        score(sides)


# ---- files


def test_cases_without_a_counterpart_are_counted(sides):
    write(sides[0], a=labels(v1=1), extra=labels(v1=1))
    write(sides[1], a=labels(v1=1), forgotten=labels(v1=1))
    result = score(sides)
    assert (result.without_prediction, result.without_label) == (("forgotten",), ("extra",))
    assert list(result.cases) == ["a"]


def test_no_case_in_common_is_an_error(sides):
    write(sides[0], a=labels(v1=1))
    write(sides[1], b=labels(v1=1))
    with pytest.raises(FseftError, match="no case in common: predictions a; labels b"):
        match_files(*sides)


def test_two_single_files_match_with_any_names(tmp_path):
    write(tmp_path, segmented=labels(v1=1), truth=labels(v1=1))
    pairing = match_files(tmp_path / "segmented.nii.gz", tmp_path / "truth.nii.gz")
    assert list(evaluate(pairing).cases) == ["truth"]


def test_swapped_arguments_are_refused(sides):
    describe(sides[0] / "predictions.json", {"liver": 1})
    for side in sides:
        write(side, a=labels(v1=1))
    with pytest.raises(FseftError, match=r"given as the labels.*Give the predictions first"):
        match_files(*sides[::-1])


def test_a_case_in_two_files_is_an_error(sides):
    write(sides[0], a=labels(v1=1))
    write(sides[0], ".nrrd", a=labels(v1=1))
    write(sides[1], a=labels(v1=1))
    with pytest.raises(FseftError, match=r"case a.*second file"):
        match_files(*sides)


def test_for_the_root_of_a_dataset_the_folder_of_labels_is_suggested(sides):
    write(sides[0], a=labels(v1=1))
    write(sides[1], a=labels(v1=1))
    with pytest.raises(FseftError, match=r"Give .*labelsTs"):
        match_files(sides[0], sides[1].parent)
    with pytest.raises(FseftError, match="does not exist"):
        match_files(sides[0], sides[1] / "no")


MOVED = {
    "spacing": Geometry(GRID.shape, np.diag([2.0, 2.0, 3.0, 1.0])),
    "origin": Geometry(GRID.shape, GRID.affine + np.array([[0, 0, 0, 9.0]] + [[0] * 4] * 3)),
}


@pytest.mark.parametrize("difference", MOVED)
def test_a_prediction_on_another_grid_is_refused_with_the_difference(sides, difference):
    write(sides[0], grid=MOVED[difference], a=labels(v1=1))
    write(sides[1], a=labels(v1=1))
    with pytest.raises(
        FseftError, match=rf"case a.*not on the grid of its label a\.nii\.gz: {difference}"
    ):
        score(sides)


def test_a_label_with_another_axis_order_is_reoriented(sides):
    write(sides[0], a=labels(v1=1))
    turned, geometry = reorient(labels(v1=1), GRID, "RPI")
    write(sides[1], grid=geometry, a=turned)
    assert score(sides).mean["dice"] == 1


def test_a_prediction_of_another_shape_is_refused(sides):
    write(sides[0], grid=Geometry((7, 9, 10), GRID.affine), a=labels(v1=1)[1:])
    write(sides[1], a=labels(v1=1))
    with pytest.raises(FseftError, match=r"shape .*7.* against .*8.* voxels"):
        score(sides)


def test_distances_on_sheared_axes_are_called_approximate(sides, caplog):
    affine = GRID.affine.copy()
    affine[0, 1] += 0.2
    for side in sides:
        write(side, grid=Geometry(GRID.shape, affine), a=labels(v1=1))
    score(sides)
    assert "voxel axes are not perpendicular" in caplog.text


# ---- results


def test_the_results_are_written_as_a_document_and_a_table(sides, tmp_path):
    write(sides[0], a=labels(v1=1), b=labels(v1=1))
    write(sides[1], a=labels(v1=1), b=labels(v1=3))
    result = score(sides)
    document, table = write_evaluation(result, tmp_path / "out")
    assert read_document(document, Evaluation) == result
    assert json.loads(document.read_text())["mean_dice"] == pytest.approx((1 + 1 / 3) / 2)
    with table.open() as file:
        assert [line["case"] for line in csv.DictReader(file)] == ["a", "b"]


def test_document_and_table_are_of_the_same_evaluation(sides, tmp_path):
    """Another process that writes both holds the lock until they are complete."""
    write(sides[0], a=labels(v1=1))
    write(sides[1], a=labels(v1=1))
    result = score(sides)
    with ThreadPoolExecutor() as pool:
        with file_lock(tmp_path / METRICS):
            waiting = pool.submit(write_evaluation, result, tmp_path)
            wait([waiting], timeout=0.2)
            assert not list(tmp_path.glob("metrics.*"))
        waiting.result()
    assert {path.name for path in tmp_path.glob("metrics.*")} == {METRICS, "metrics.csv"}


@pytest.mark.parametrize(("text", "value"), [("2mm", 2), ("2", 2), (" 1.5 MM ", 1.5), ("0", 0)])
def test_a_tolerance_is_a_length_in_mm(text, value):
    assert parse_tolerance(text) == value


@pytest.mark.parametrize("text", ["", "mm", "2cm", "-1mm", "nan", "inf"])
def test_an_invalid_tolerance_is_refused(text):
    with pytest.raises(FseftError, match="Write it as 2mm"):
        parse_tolerance(text)


# ---- adapters


def predicted_by(sides, **seen):
    """Write predictions of each case by the adapter of the same name, trained on it or not."""
    write(sides[0], **{case: labels(v1=1) for case in seen})
    write(sides[1], **{case: labels(v1=1) for case in seen})
    cases = {
        case: PredictedCase(key="k", adapter=case, seen=is_support)
        for case, is_support in seen.items()
    }
    index = Predictions(
        labels={"liver": 1}, adapters={case: f"runs/{case}" for case in seen}, cases=cases
    )
    write_document(sides[0] / "predictions.json", index)


def test_the_adapter_of_a_segmentation_that_was_changed_is_unknown(sides, caplog):
    predicted_by(sides, a=False, b=False)
    path = sides[0] / "predictions.json"
    index = read_document(path, Predictions)
    sha256 = file_digest(sides[0] / "a.nii.gz")
    cases = {
        "a": index.cases["a"].model_copy(update={"sha256": sha256}),
        "b": index.cases["b"].model_copy(update={"sha256": "other"}),
    }
    write_document(path, index.model_copy(update={"cases": cases}))
    assert score(sides).adapters == {"a": "runs/a"}
    assert "b.nii.gz: has changed since its prediction: the adapter is unknown" in caplog.text


def test_training_cases_are_scored_on_request_only(sides):
    predicted_by(sides, a=True, b=False)
    assert (list(score(sides).cases), score(sides).support) == (["b"], ("a",))
    assert list(score(sides, include_training=True).cases) == ["a", "b"]


def test_training_cases_only_are_refused(sides):
    predicted_by(sides, a=True)
    with pytest.raises(FseftError, match=r"was trained on every case \(a\).*`include_training`"):
        score(sides)


def test_the_adapters_of_the_predictions_are_recorded(sides):
    predicted_by(sides, a=False, b=False)
    assert match_files(*sides).adapters == {"a": "runs/a", "b": "runs/b"}
    assert score(sides).adapters == {"a": "runs/a", "b": "runs/b"}


def test_values_may_be_named_without_a_description(sides):
    describe(sides[0] / "predictions.json", {"liver": 1, "spleen": 2})
    write(sides[0], a=labels(v1=1, v2=5))
    write(sides[1], a=labels(v7=1, v6=5))
    result = evaluate(match_files(*sides, values={"liver": 7, "spleen": 6}))
    dice = {name: summary.mean["dice"] for name, summary in result.classes.items()}
    assert dice == {"liver": 1, "spleen": 1}
