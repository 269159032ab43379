"""A workspace in a folder, and commands that run in it in other processes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fseft.workspace import Workspace
from tests import checkpoint_files
from tests.sample_data import write_dataset, write_model

ROOT = Path(__file__).parents[2]
QUICK = "--set epochs=2 --set crops_per_step=1 --set early_stopping=false --device cpu"
TRIALS = "--k 1 --test 2 --set epochs=1 --set crops_per_step=1 --device cpu"
ADAPT = f"adapt data --model tiny --k 2 {QUICK}"
PRETRAIN = (
    "pretrain data --name made --architecture resunet --set channels=4,8 --patch 32,32,32 "
    "--steps-per-epoch 1 --crops-per-step 1 --device cpu"
)
COMMANDS = {
    "start": "start scans --yes",
    "plan": "plan data --model tiny --device cpu",
    "preprocess": "preprocess data --model tiny",
    "adapt": f"{ADAPT} --method lora",
    "adapt on features": f"{ADAPT} --method linear-probe",
    "adapt elsewhere": f"{ADAPT} --method bias -o elsewhere",
    "predict": "predict data/imagesTr -o predicted --adapter runs/data/tiny/lora-k2-s0 "
    "--adapter runs/data/tiny/linear-probe-k2-s0 --probabilities --device cpu",
    "evaluate": "evaluate predicted data/labelsTr --include-training",
    "report": "report predicted",
    "benchmark": f"benchmark data --model tiny --method linear-probe,bias {TRIALS} -o compared",
    "pretrain": f"{PRETRAIN} --epochs 2",
    "pretrain again": f"{PRETRAIN} --epochs 1 --overwrite",
    "models import": "models import suprem_unet checkpoint.pth",
    "models import again": "models import suprem_unet checkpoint.pth",
    "export": "export elsewhere --to safetensors -o exported",
    "plugin new": "plugin new my-method --kind method",
    "phantom": "phantom torsos --cases 1 --test-cases 1",
}
"""All commands that write files, in an order in which each has what it needs."""

# A trial that finds its adapter finished does not repeat the warning that the loss still decreased.
VOLATILE = {"seconds", "minutes", "adapter_bytes", "versions", "warnings"}


@dataclass
class Forks:
    """The fork server, and the folder in which its commands run."""

    folder: Path
    server: subprocess.Popen = field(repr=False)

    def call(self, *calls):
        """Runs commands at the same time; returns their outcomes."""
        requests = [{**call, "folder": str(self.folder)} for call in calls]
        self.server.stdin.write(json.dumps(requests) + "\n")
        self.server.stdin.flush()
        return json.loads(self.server.stdout.readline())

    def run(self, command, **options):
        """Runs a command; returns its outcome."""
        (outcome,) = self.call({"arguments": command.split(), **options})
        return outcome

    def restore(self, saved):
        """Makes the folder as it was saved."""
        shutil.rmtree(self.folder)
        shutil.copytree(saved, self.folder)


@pytest.fixture(scope="module")
def forks(tmp_path_factory):
    """The fork server in a new workspace."""
    folder = tmp_path_factory.mktemp("processes") / "work"
    write_dataset(folder / "data")
    write_dataset(folder / "scans", cases=("a",))
    (folder / "scans" / "dataset.json").unlink()
    write_model(Workspace(folder))
    checkpoint_files.write("suprem_unet", folder / "checkpoint.pth")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "FSEFT_NO_PLUGINS": "1",
        "FSEFT_MODELS": str(folder / "cache"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("fork_server.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as server:
        yield Forks(folder, server)
        server.stdin.close()


def without_times(content):
    """JSON without what differs between equal runs."""
    if isinstance(content, dict):
        return {key: without_times(content[key]) for key in content.keys() - VOLATILE}
    return [without_times(item) for item in content] if isinstance(content, list) else content


def content_of(file):
    """The content of a file, or its digest, without times."""
    if file.suffix in (".json", ".jsonl"):
        lines = file.read_text().splitlines() if file.suffix == ".jsonl" else [file.read_text()]
        return [without_times(json.loads(line)) for line in lines]
    if file.name in ("benchmark.csv", "benchmark.md", "SHA256SUMS", "checkpoint.pt"):
        # with times, or of such
        return ""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def contents(folder):
    """Path -> content of all files, except locks; folders without files count, too."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            found[str(path.relative_to(folder))] = "folder"
        elif not path.name.endswith(".lock"):
            found[str(path.relative_to(folder))] = content_of(path)
    return found


def differences(found, expected):
    """Names of files that are too many, missing or different."""
    return {name for name in found.keys() | expected if found.get(name) != expected.get(name)}


def is_refusal(outcome):
    """Whether a command refuses in one line to replace its complete result."""
    lines = outcome["err"].splitlines()
    return outcome["status"] == 2 and len(lines) == 1 and lines[0].startswith("error: ")
