"""`fseft plan` and `fseft preprocess` show what was decided; memory is given as people write it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from fseft.cli.plan import parse_memory, plan
from fseft.cli.preprocess import preprocess
from fseft.errors import FseftError
from fseft.schemas import Plan
from fseft.volume.geometry import Geometry
from fseft.volume.image import write_labels, write_volume
from fseft.workspace import Workspace
from tests.sample_data import write_dataset


@pytest.fixture
def call(tmp_path):
    """Run a command on a dataset of two cases, one of them without label."""
    rng = np.random.default_rng(0)
    geometry = Geometry((24, 24, 24), np.eye(4))
    label = np.zeros((24, 24, 24), np.uint8)
    label[8:16, 8:16, 8:16] = 2
    for name in ("a", "b"):
        write_volume(
            tmp_path / "d" / "imagesTr" / f"{name}.nii.gz", rng.random((1, 24, 24, 24)), geometry
        )
    write_labels(tmp_path / "d" / "labelsTr" / "a.nii.gz", label, geometry)
    app = typer.Typer()
    app.command("plan")(plan)
    app.command("preprocess")(preprocess)

    def run(command, *options):
        given = [
            str(tmp_path / "d"),
            "--model",
            "none",
            "--workspace",
            str(tmp_path / "w"),
            "--device",
            "cpu",
        ]
        return CliRunner().invoke(app, [command, *given, *options], catch_exceptions=False)

    return run


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("12GB", 12 * 10**9),
        ("800 mb", 8 * 10**8),
        ("1.5g", 1_500_000_000),
        ("16GiB", 16 << 30),
        ("4096", 4096),
        ("", None),
    ],
)
def test_memory_is_read_as_people_write_it(text, count):
    assert parse_memory(text) == count


@pytest.mark.parametrize("text", ["much", "-1GB", "0GB", "12 GB free", "5iB", "nan"])
def test_a_text_that_is_not_an_amount_of_memory_is_refused(text):
    with pytest.raises(FseftError, match="not an amount of memory"):
        parse_memory(text)


def test_the_plan_is_shown_with_dataset_structures_and_reasons(call):
    text = " ".join(call("plan").output.split())
    assert "d (folders): 2 cases, 1 with structures" in text
    assert "class_2 2 1 0.512" in text
    for word in ("decision", "reason", "spacing", "patch size", "crops per step"):
        assert word in text


def test_json_is_the_plan_and_nothing_else(call):
    result = call("plan", "--json")
    assert Plan.model_validate(json.loads(result.stdout)).dataset == "d"


def test_strict_refuses_what_is_incomplete(call):
    with pytest.raises(FseftError, match="1 image without a label"):
        call("plan", "--strict")


def test_preprocess_keeps_the_plan_of_the_user(call, tmp_path):
    path = Workspace(tmp_path / "w").plan("d", "none")
    call("preprocess")
    assert not path.exists()
    call("plan", "--spacing", "2,2,2")
    before = path.read_bytes()
    call("preprocess", "--memory", "8GB")
    assert path.read_bytes() == before


def test_preprocess_reports_how_many_cases_it_processed(call):
    assert "2 cases preprocessed, 0 skipped" in " ".join(call("preprocess").output.split())
    assert "0 cases preprocessed, 2 skipped" in " ".join(call("preprocess").output.split())


def imported_by(*arguments):
    """Those of PyTorch and MONAI that a command imports."""
    code = (
        "import sys; from fseft.cli.main import app; "
        "app(sys.argv[1:], standalone_mode=False); "
        "print(sorted({'torch', 'monai'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()[-1]


def test_planning_preprocessing_and_evaluation_import_neither_torch_nor_monai(blobs, tmp_path):
    for command in ("plan", "preprocess"):
        options = ("--model", "phantom-tiny", "--device", "cpu", "--workspace", tmp_path)
        assert imported_by(command, blobs, *options) == "[]"
    predictions = shutil.copytree(blobs / "labelsTr", tmp_path / "predictions")
    assert imported_by("evaluate", predictions, blobs / "labelsTr", "--workers", 1) == "[]"


def test_the_plan_shows_which_structures_each_case_annotates(call, tmp_path):
    label = np.zeros((24, 24, 24), np.uint8)
    label[2:6, 2:6, 2:6] = 1
    label[8:16, 8:16, 8:16] = 2
    write_labels(tmp_path / "d" / "labelsTr" / "b.nii.gz", label, Geometry(label.shape, np.eye(4)))
    assert "not annotated" not in call("plan").output
    shown = call("plan", "--missing-label", "unannotated").output
    rows = [line.split() for line in shown.splitlines()]
    assert ["a", "?", "0.512"] in rows
    assert ["b", "0.064", "0.512"] in rows


def test_commands_take_the_ids_of_nnunet(fseft, tmp_path, monkeypatch):
    write_dataset(tmp_path / "raw" / "Dataset102_Livers")
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    described = "Dataset102_Livers (nnunet): 4 cases"
    assert described in fseft("plan", "102", "--model", "none").out
    assert described in fseft("doctor", "102").out
    assert "fseft adapt 102" in fseft("start", "102").out
