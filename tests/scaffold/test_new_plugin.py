"""A new plugin installs, is found, passes its own tests and is well written; what cannot be is told in a line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fseft.errors import FseftError
from fseft.scaffold.new_plugin import USAGE, new_plugin

ROOT = Path(__file__).parents[2]


def python(*arguments, path=(), cwd=ROOT):
    """Run a module of Python in a process of its own, which sees these folders first."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("FSEFT_")}
    environment = {
        **kept,
        "PYTHONPATH": os.pathsep.join(map(str, (*path, ROOT))),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        env=environment,
        cwd=cwd,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.full
@pytest.mark.parametrize("kind", USAGE)
def test_a_new_plugin_installs_and_passes_its_own_tests(kind, tmp_path):
    pytest.importorskip("hatchling")
    folder, site = tmp_path / "fseft-my-own", tmp_path / "site"
    new_plugin("my-own", kind, folder)
    python(
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        str(site),
        str(folder),
    )
    plugins = {
        entry["name"]: entry
        for entry in json.loads(python("fseft", "plugins", "--json", path=[site]))
    }
    assert plugins["my-own"]["distribution"] == "fseft-my-own"
    assert plugins["my-own"]["provides"] == {kind: ["my-own"]}
    assert plugins["my-own"]["problems"] == []
    python("pytest", "-q", "-p", "no:cacheprovider", path=[site], cwd=folder)


@pytest.mark.parametrize("name", ["a", "a-name-that-is-quite-a-bit-longer-2"])
@pytest.mark.parametrize("kind", USAGE)
def test_a_new_plugin_is_well_written(kind, name, tmp_path):
    new_plugin(name, kind, tmp_path / "new")
    python("ruff", "check", "--no-cache", ".", cwd=tmp_path / "new")
    python("ruff", "format", "--no-cache", "--check", ".", cwd=tmp_path / "new")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Mine", "is no name for a method"),
        ("../mine", "is no name for a method"),
        ("3d", "a letter first"),
        ("fseft-mine", "Say mine"),
        ("lora", "there is a method 'lora' already, of fseft"),
    ],
)
def test_a_name_that_cannot_be_is_refused(name, told, tmp_path):
    with pytest.raises(FseftError, match=told):
        new_plugin(name, "method", tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_a_filled_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(FseftError, match="is not empty"):
        new_plugin("mine", "method", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
