"""fseft finds the plugin, and lists it without PEFT."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from fseft.registry import registry
from fseft_hf_peft.tuners import TUNERS

FOLDER = Path(__file__).parents[1]


def test_fseft_finds_the_methods():
    source = registry().resolve("method", "hf-lora").source
    assert source.distribution == "fseft-hf-peft"
    assert source.problems == []
    assert len([name for name in registry().names("method") if name.startswith("hf-")]) == 32


def test_listing_loads_no_peft():
    code = (
        "import sys, fseft_hf_peft.plugin as p; "
        "list(p.fseft_methods()); sys.exit('peft' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("first", ["sys", "monai.networks.nets", "transformers"])
def test_a_torchvision_that_cannot_be_loaded_does_no_harm(tmp_path, first):
    (tmp_path / "torchvision.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')\n"
    )
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); "
        f"import {first}; from fseft_hf_peft.library import peft"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_readme_has_every_tuner():
    spec = importlib.util.spec_from_file_location("make_readme", FOLDER / "make_readme.py")
    make_readme = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_readme)
    rows = [
        line
        for line in (FOLDER / "README.md").read_text(encoding="utf-8").splitlines()
        if "| `hf-" in line
    ]
    assert [row.rsplit("|", 3)[0] + "|" for row in rows] == [
        make_readme.row(tuner) for tuner in TUNERS
    ]
