"""`fseft evaluate` shows a table or prints the document, and reports what it did not score."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fseft.volume.geometry import Geometry
from fseft.volume.image import write_labels


@pytest.fixture
def folders(tmp_path):
    """Folders of predictions with a case, and of labels with another structure and another case."""
    liver = np.zeros((8, 8, 8), np.uint8)
    liver[2:5, 2:5, 2:5] = 1
    both = liver + (liver.swapaxes(0, 1)[::-1] > 0)
    grid = Geometry(liver.shape, np.eye(4))
    predictions, labels = tmp_path / "predictions", tmp_path / "labels"
    write_labels(predictions / "a.nii.gz", liver, grid)
    write_labels(labels / "a.nii.gz", both, grid)
    write_labels(labels / "b.nii.gz", liver, grid)
    (predictions / "predictions.json").write_text('{"labels": {"liver": 1}, "cases": {}}')
    return predictions, labels


@pytest.fixture
def evaluate(fseft, folders):
    """Run the command on both folders; further arguments are added."""
    return lambda *more: fseft("evaluate", *map(str, (*folders, *more)))


def test_the_table_names_structure_mean_and_tolerance(evaluate):
    ended = evaluate("--tolerance", "1mm")
    assert ended.status == 0, ended.err
    assert "liver" in ended.out
    assert "mean" in ended.out
    assert "NSD within 1 mm" in ended.out


def test_cases_and_structures_that_are_not_scored_are_reported_on_stderr(evaluate):
    ended = evaluate()
    assert "1 case without a prediction: not scored" in ended.err
    assert not any("without a prediction" in warning for warning in ended.warnings)
    assert "class_2" in ended.err


def test_json_is_the_written_document_and_nothing_else(evaluate, folders):
    written = folders[0] / "metrics.json"
    assert json.loads(evaluate("--json").out) == json.loads(written.read_text())
    assert (folders[0] / "metrics.csv").is_file()


def test_results_are_written_to_the_output_folder(evaluate, folders, tmp_path):
    ended = evaluate("-o", tmp_path / "elsewhere")
    assert "elsewhere/metrics.json and metrics.csv" in ended.out
    names = sorted(path.name for path in (tmp_path / "elsewhere").glob("[!.]*"))
    assert names == ["metrics.csv", "metrics.json"]
    assert not (folders[0] / "metrics.json").exists()


def test_metrics_are_selected_by_name(evaluate):
    heading = evaluate("--metrics", "assd,dice").out.splitlines()[1]
    assert heading.split()[:3] == ["structure", "ASSD", "Dice"]
    unknown = evaluate("--metrics", "dise")
    assert unknown.status == 2
    assert "unknown metric 'dise'. Did you mean dice?" in unknown.err


def test_the_table_fits_80_columns(evaluate):
    lines = evaluate().out.splitlines()
    heading = next(line for line in lines if "Dice" in line)
    assert "none" in heading
    assert len(heading) <= 80


def test_labels_without_names_are_matched_by_value_with_a_warning(evaluate):
    assert "assumed as in the predictions (1 = liver)" in evaluate().err
    assert "assumed as" not in evaluate("--values", "liver=1").err
    swapped = evaluate("--values", "1=liver")
    assert swapped.status == 2
    assert "expected NAME=NUMBER" in swapped.err
    unknown = evaluate("--values", "lever=1")
    assert unknown.status == 2
    assert "name structures as in the predictions (`--values`)" in unknown.err


def test_scores_are_not_written_to_the_labels_or_over_a_file(fseft, evaluate, folders, tmp_path):
    labels = folders[1]
    same = fseft("evaluate", str(labels), str(labels))
    assert same.status == 2
    assert "is given as the predictions and as the labels" in same.err
    assert not (labels / "metrics.json").exists()
    (tmp_path / "file").touch()
    assert "file: is a file, not a folder" in evaluate("-o", str(tmp_path / "file")).err
