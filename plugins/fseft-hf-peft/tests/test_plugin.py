"""fseft finds the plugin, and lists it without PEFT."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fseft.registry import registry


def test_fseft_knows_it():
    source = registry().offer("method", "hf-lora").source
    assert source.distribution == "fseft-hf-peft"
    assert source.problems == []
    assert len([name for name in registry().names("method") if name.startswith("hf-")]) == 32


def test_listing_loads_no_peft():
    code = "import sys, fseft_hf_peft.plugin as p; list(p.fseft_methods()); sys.exit('peft' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("first", ["sys", "monai.networks.nets", "transformers"])
def test_a_torchvision_that_cannot_be_loaded_does_no_harm(tmp_path, first):
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import {first}; from fseft_hf_peft.library import peft"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
