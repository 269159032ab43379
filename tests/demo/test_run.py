"""The demonstration runs the whole workflow, trains a fixed number of steps, and writes its page."""

from __future__ import annotations

import json

import pytest

from fseft.demo import run
from fseft.demo.page import table_rows
from fseft.demo.results import DemoRequest


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Run a short demonstration of two methods once."""
    request = DemoRequest(tmp_path_factory.mktemp("demo"), k=1, test_cases=1, epochs=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "METHODS", ("zero-shot", "lora"))
        return run.run_demo(request)


def test_the_number_of_steps_does_not_depend_on_the_time(demo):
    assert [result.run.epochs for result in demo.results] == [0, 2]
    assert demo.results[1].run.stopped_by == "all epochs"


def test_the_table_has_a_row_per_method(demo):
    zero_shot, lora = table_rows(demo.results)
    assert (zero_shot[0], zero_shot[1]) == ("zero-shot", 0)
    assert lora[1] > 0
    assert zero_shot[3] > 0.5  # classes of the embedded model


def test_the_page_shows_tables_pictures_and_the_loss(demo):
    html = demo.page.read_text(encoding="utf-8")
    assert html.count("data:image/png") == 6  # three planes of the worst phantom, two methods
    assert html.count("coronal, ") == 2 * 2  # title and alternative text
    assert "<svg" in html
    assert "zero-shot" in html
    assert "HD95" in html
    assert "fseft start FOLDER" in html


def test_phantoms_are_written_by_the_command(fseft_phantom):
    shown = fseft_phantom("livers", "--cases", "1", "--structures", "liver", "--json")
    assert json.loads(shown) == [{"folder": "livers", "cases": 1, "test_cases": 0}]


@pytest.fixture
def fseft_phantom(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from fseft.cli.main import app

    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        result = CliRunner().invoke(app, ["phantom", *arguments])
        assert result.exit_code == 0, result.output
        return result.stdout

    return call
