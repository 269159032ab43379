"""`fseft evaluate` shows a table or prints the document, and says what it did not score."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from fseft.cli.main import app
from fseft.volume.geometry import Geometry
from fseft.volume.image import write_labels


@pytest.fixture
def folders(tmp_path):
    made = np.zeros((8, 8, 8), np.uint8)
    made[2:5, 2:5, 2:5] = 1
    grid = Geometry(made.shape, np.eye(4))
    predictions, labels = tmp_path / "predictions", tmp_path / "labels"
    write_labels(predictions / "a.nii.gz", made, grid)
    write_labels(labels / "a.nii.gz", made + (made.swapaxes(0, 1)[::-1] > 0), grid)
    write_labels(labels / "b.nii.gz", made, grid)
    (predictions / "predictions.json").write_text('{"labels": {"liver": 1}, "cases": {}}')
    return predictions, labels


def run(*arguments):
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def test_the_table_names_structure_mean_and_tolerance(folders):
    result = run(*folders, "--tolerance", "1mm")
    assert result.exit_code == 0, result.output
    assert "liver" in result.stdout
    assert "mean" in result.stdout
    assert "NSD within 1 mm" in result.stdout


def test_what_is_not_scored_is_told_on_stderr(folders):
    result = run(*folders)
    assert "1 case without a prediction: b" in result.stderr
    assert "class_2" in result.stderr


def test_json_is_the_written_document_and_nothing_else(folders):
    result = run(*folders, "--json")
    assert json.loads(result.stdout) == json.loads((folders[0] / "metrics.json").read_text())
    assert (folders[0] / "metrics.csv").is_file()


def test_results_go_where_they_are_wanted(folders, tmp_path):
    assert run(*folders, "-o", tmp_path / "elsewhere").exit_code == 0
    assert sorted(path.name for path in (tmp_path / "elsewhere").iterdir()) == [
        "metrics.csv",
        "metrics.json",
    ]
    assert not (folders[0] / "metrics.json").exists()


def test_the_table_fits_80_columns(folders):
    result = run(*folders)
    heading = next(line for line in result.stdout.splitlines() if "Dice" in line)
    assert "none" in heading
    assert len(heading) <= 80


def test_labels_without_names_are_matched_by_value_and_that_is_told(folders, caplog):
    run(*folders)
    assert "assumed as in the predictions (1 = liver)" in caplog.text
    caplog.clear()
    run(*folders, "--values", "liver=1")
    assert "assumed as" not in caplog.text
    wrong = run(*folders, "--values", "liver")
    assert wrong.exit_code != 0
