"""The documentation builds without a warning, and what is generated or repeated there is right."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


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


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_container_copies_what_the_package_is_built_from():
    recipe = (ROOT / "docs" / "install" / "Dockerfile").read_text(encoding="utf-8")
    copied = set()
    for line in re.findall(r"^COPY (.+) \S+$", recipe, re.MULTILINE):
        copied |= set(line.split())
    assert {name for name in copied if not (ROOT / name).exists()} == set()
    needed = {project()["readme"], *project()["license-files"], "pyproject.toml"}
    assert needed | {"fseft", "constraints.txt"} <= copied


def test_the_conda_environment_has_versions_that_the_package_accepts():
    text = (ROOT / "docs" / "install" / "environment.yml").read_text(encoding="utf-8")
    (torch,) = [name for name in project()["dependencies"] if name.startswith("torch")]
    assert f"- py{torch}" in text
    python = re.search(r"- python=3\.(\d+)", text)
    assert int(python[1]) >= int(project()["requires-python"].rpartition(".")[2])
