"""Pages that are made from the registry are up to date."""

from __future__ import annotations

import runpy
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def test_the_page_of_methods_is_as_it_would_be_made_now():
    made = runpy.run_path(str(DOCS / "make_methods.py"))
    assert made["PAGE"].read_text(encoding="utf-8") == made["page"](), "run python docs/make_methods.py"
