"""The notebook of the documentation runs from its first cell to its last."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebooks" / "quickstart.ipynb"


@pytest.mark.full
def test_the_notebook_adapts_predicts_and_evaluates(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert all(cell["outputs"] == [] for cell in cells if cell["cell_type"] == "code")
    names = {"__name__": "__main__"}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)  # noqa: S102
    assert len(names["losses"].values) == 6
    assert set(names["scores"].classes) == {"liver", "spleen"}
    assert names["scores"].mean["dice"] > 0.3
    assert names["labels"].shape == names["scan"].shape
    assert "patch size" in capsys.readouterr().out
