"""A new plugin installs, registers, passes its tests and is well written."""

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
    """Run a module of Python in a new process, with folders first on its path."""
    environment = {
        "PYTHONPATH": os.pathsep.join(map(str, (*path, ROOT))),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    for key, value in os.environ.items():
        if not key.startswith("FSEFT_"):
            environment.setdefault(key, value)
    process = subprocess.run(
        [sys.executable, "-m", *arguments],
        env=environment,
        cwd=cwd,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


@pytest.mark.full
@pytest.mark.parametrize("kind", USAGE)
def test_a_new_plugin_installs_and_passes_its_own_tests(kind, tmp_path):
    pytest.importorskip("hatchling")
    folder, site = tmp_path / "fseft-my-own", tmp_path / "site"
    new_plugin("my-own", kind, folder)
    options = ("-q", "--no-deps", "--no-build-isolation", "--target", str(site))
    python("pip", "install", *options, str(folder))
    listing = json.loads(python("fseft", "plugins", "--json", path=[site]))
    (plugin,) = [entry for entry in listing if entry["name"] == "my-own"]
    assert plugin["distribution"] == "fseft-my-own"
    assert plugin["provides"] == {kind: ["my-own"]}
    assert plugin["problems"] == []
    python("pytest", "-q", "-p", "no:cacheprovider", path=[site], cwd=folder)


@pytest.mark.parametrize("name", ["a", "a-name-that-is-quite-a-bit-longer-2"])
@pytest.mark.parametrize("kind", USAGE)
def test_a_new_plugin_is_well_written(kind, name, tmp_path):
    folder = tmp_path / "new"
    new_plugin(name, kind, folder)
    python("ruff", "check", "--no-cache", ".", cwd=folder)
    python("ruff", "format", "--no-cache", "--check", ".", cwd=folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Mine", "is not a valid name of a method"),
        ("../mine", "is not a valid name of a method"),
        ("3d", "a letter first"),
        ("fseft-mine", "Use mine"),
        ("lora", "the method 'lora' exists already, in fseft"),
    ],
)
def test_an_invalid_name_is_refused(name, message, tmp_path):
    with pytest.raises(FseftError, match=message):
        new_plugin(name, "method", tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_files_is_not_changed(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(FseftError, match="is not empty"):
        new_plugin("mine", "method", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
