"""Pages that are made from the registry are up to date."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("script", sorted(path.name for path in DOCS.glob("make_*.py")))
def test_a_page_is_as_it_would_be_made_now(script):
    made = runpy.run_path(str(DOCS / script))
    assert made["PAGE"].read_text(encoding="utf-8") == made["page"](), f"run python docs/{script}"
