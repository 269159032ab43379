"""The documentation builds without a warning, and what is generated or repeated there is right."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fseft import api
from fseft.volume.image import read_labels, write_labels
from tests.sample_data import write_dataset

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


def declarations(page):
    """Returns each `dataset.json` in the code blocks of a page."""
    blocks = re.findall(r"```json\n(.+?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    return [json.loads(block) for block in blocks]


@pytest.mark.parametrize("declared", declarations("labels.md"))
def test_the_declarations_of_incomplete_labels_can_be_used_as_they_stand(tmp_path, declared):
    folder = write_dataset(tmp_path / "set", cases=("case_7", "case_8"))
    labels = dict(declared["labels"])
    background, ignore = labels.pop("background"), labels.pop("ignore", None)
    written = declared.get("regions_class_order") or list(labels.values())
    for path in (folder / "labelsTr").iterdir():
        volume = read_labels(path)
        label = np.where(volume.array[0] > 0, written[0], background)
        label[volume.array[0] == 7] = written[-1]
        label[:2] = background if ignore is None else ignore
        write_labels(path, label, volume.geometry)
    (folder / "dataset.json").write_text(json.dumps(declared))
    fingerprint, plan = api.plan(folder, "none", device="cpu", workspace=tmp_path / "workspace")
    assert [name for name, found in fingerprint.classes.items() if found.cases]
    assert bool(fingerprint.partly_annotated()) == (ignore is not None)
    assert plan.dataset == "set"


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
