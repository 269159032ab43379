"""`fseft report` prints the path of its page, and refuses other folders in one line."""

from __future__ import annotations

import json

import pytest

from tests.result_pages.test_report import write_predictions

from .conftest import refused


@pytest.fixture
def predictions(tmp_path):
    return write_predictions(tmp_path, {"a": 0, "b": 3})


def test_the_path_of_the_page_is_printed(fseft, predictions):
    ended = fseft("report", "segmented", "--labels", "labels", "--json")
    assert ended.status == 0, ended.err
    assert json.loads(ended.out) == {"page": "segmented/report.html", "kind": "predictions"}
    assert (predictions / "report.html").is_file()


def test_the_page_is_opened_on_request(fseft, predictions, monkeypatch):
    opened = []
    monkeypatch.setattr("typer.launch", opened.append)
    assert fseft("report", str(predictions), "--no-pictures", "--open").status == 0
    assert opened == [str(predictions / "report.html")]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nowhere",), ("nowhere", "does not exist")),
        (("scans",), ("scans", "contains no results", "Pass the output folder")),
        (("segmented", "--labels", "scans/none"), ("scans/none", "does not exist")),
        (("segmented", "--scans", "none"), ("none", "does not exist")),
        (("segmented", "-o", "scans"), ("scans", "is a folder")),
    ],
)
def test_other_folders_are_refused(fseft, predictions, arguments, words):
    refused(fseft("report", *arguments), words)
    assert not (predictions / "report.html").exists()
