"""The documentation builds without a warning, and its generated pages are up to date."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.full
@pytest.mark.parametrize("script", sorted(path.name for path in DOCS.glob("make_*.py")))
def test_a_page_is_as_it_would_be_made_now(script):
    made = runpy.run_path(str(DOCS / script))
    assert made["PAGE"].read_text(encoding="utf-8") == made["page"](), f"run python docs/{script}"


@pytest.mark.full
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path)]
    build = subprocess.run(command, cwd=DOCS.parent, capture_output=True, text=True, check=False)
    assert build.returncode == 0, build.stderr
    assert (tmp_path / "cli.html").is_file()
