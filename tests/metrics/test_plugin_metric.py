"""A metric from a plugin is one file, and appears wherever the built-in metrics do."""

from __future__ import annotations

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from fseft import registry as plugins
from fseft.cli.main import app
from fseft.errors import FseftError
from fseft.metrics.selection import select_metrics
from fseft.plugin import MetricSpec, hookimpl
from fseft.volume.geometry import Geometry
from fseft.volume.image import write_labels
from tests.metrics import volume_ratio_plugin
from tests.sample_data import write_dataset, write_model


def entry_point(module):
    package = SimpleNamespace(name="fseft-mine", version="1.0")
    return SimpleNamespace(name="mine", dist=package, load=lambda: module)


@pytest.fixture
def install(monkeypatch):
    """Make a module the only installed plugin."""
    monkeypatch.delenv("FSEFT_NO_PLUGINS")

    def install(module):
        monkeypatch.setattr(plugins.metadata, "entry_points", lambda **_: [entry_point(module)])
        plugins.registry.cache_clear()

    yield install
    plugins.registry.cache_clear()


def run(*arguments):
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    return result.stdout


def headings(text):
    return next(line.split() for line in text.splitlines() if "Dice" in line)


def test_evaluate_shows_and_writes_it(install, tmp_path):
    install(volume_ratio_plugin)
    labels = np.zeros((8, 8, 8), np.uint8)
    labels[2:6, 2:6, 2:6] = 1
    half = labels.copy()
    half[4:] = 0
    write_labels(tmp_path / "predictions" / "a.nii.gz", half, Geometry(labels.shape, np.eye(4)))
    write_labels(tmp_path / "labels" / "a.nii.gz", labels, Geometry(labels.shape, np.eye(4)))
    folders = (tmp_path / "predictions", tmp_path / "labels")
    shown = run("evaluate", *folders, "--metrics", "dice,volume-ratio,assd")
    assert headings(shown)[:4] == ["structure", "Dice", "VR", "ASSD"]
    assert "0.50" in shown
    assert "VR is prediction / reference, ASSD in mm." in shown
    document = json.loads((tmp_path / "predictions" / "metrics.json").read_text())
    assert document["mean_volume_ratio"] == 0.5
    assert document["cases"]["a"]["class_1"]["volume_ratio"] == 0.5
    with (tmp_path / "predictions" / "metrics.csv").open() as file:
        assert next(csv.DictReader(file))["volume_ratio"] == "0.5"


def test_benchmark_shows_and_writes_it(install, tmp_path):
    from fseft.workspace import Workspace

    install(volume_ratio_plugin)
    write_dataset(tmp_path / "blobs")
    write_model(Workspace(tmp_path))
    options = [
        "--method",
        "zero-shot",
        "-k",
        "1",
        "--device",
        "cpu",
        "--metrics",
        "dice,volume-ratio",
    ]
    folders = ("-o", tmp_path / "bench", "--workspace", tmp_path)
    shown = run("benchmark", tmp_path / "blobs", "--model", "tiny", *options, *folders)
    assert headings(shown)[:4] == ["method", "k", "Dice", "VR"]
    document = json.loads((tmp_path / "bench" / "benchmark.json").read_text())
    assert document["rows"][0]["volume_ratio"] >= 0
    table = (tmp_path / "bench" / "benchmark.csv").read_text()
    assert table.splitlines()[0].endswith("case,structure,dice,volume_ratio")


# ---- what cannot be chosen


def metric(name="mine", **options):
    values = {"title": "M", "direction": "higher", "missing": 0.0, "factory": "math:sqrt"}
    return MetricSpec(name=name, **(values | options))


def providing(*specs):
    @hookimpl
    def fseft_metrics():
        return specs

    return SimpleNamespace(fseft_metrics=fseft_metrics)


def test_an_unknown_metric_is_refused_with_the_nearest_name():
    with pytest.raises(FseftError, match=r"unknown metric 'dise'.*dice"):
        select_metrics(["dise"])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (metric(factory="no_such_module:score"), "'mine' cannot be imported"),
        (metric("cases"), "key 'cases' is already in use"),
        (metric("dice_std"), "key 'dice_std' is already in use"),
        (metric("hd95_mm"), "key 'hd95_mm' is already in use"),
    ],
)
def test_a_metric_that_cannot_be_used_is_refused_before_any_file_is_read(install, spec, message):
    install(providing(spec))
    with pytest.raises(FseftError, match=message):
        select_metrics(["hd95", spec.name])
