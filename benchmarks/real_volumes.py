"""The five commands on real volumes, CT and MR: one Markdown table.

Run: `FSEFT_REAL_DATA=... python benchmarks/real_volumes.py --minutes 1.5`. Every row has the same support cases, the
same training time and the same unseen cases; scores are on the native grid. `--dry-run` prints the commands; a run that
was cut off goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROWS = (
    ("phantom-tiny", "linear-probe"),
    ("phantom-tiny", "lora"),
    ("phantom-tiny", "full"),
    ("none", "scratch"),
)


@dataclass(frozen=True)
class Task:
    """A dataset, the cases to learn from, and the unseen ones."""

    name: str
    folder: Path
    pool: tuple[str, ...]
    scans: tuple[Path, ...]
    labels: Path
    structures: str = ""


def hippocampus(data: Path, unseen: int = 20) -> Task:
    """MR of the hippocampus; of the last 20 labelled cases, which are never learned from, the first are scored."""
    folder = data / "hippocampus"
    images = {path.name for path in (folder / "imagesTr").iterdir()}
    both = sorted(path.name for path in (folder / "labelsTr").iterdir() if path.name in images)
    pool = tuple(name.removesuffix(".nii.gz") for name in both[:-20])
    scans = tuple(folder / "imagesTr" / name for name in both[-20:][:unseen])
    return Task("hippocampus (MR)", folder, pool, scans, folder / "labelsTr")


def headneck(data: Path, unseen: int = 16) -> Task:
    """Planning CT; support from the completely contoured cases, of the 16 test cases the first are scored."""
    folder = data / "headneck"
    complete = tuple(json.loads((folder / "splits.json").read_text())["complete"])
    scans = tuple(sorted((folder / "imagesTs").iterdir())[:unseen])
    core = "brainstem,spinal_cord,parotid_right,parotid_left,mandible"
    return Task("headneck (CT)", folder, complete, scans, folder / "labelsTs", core)


@dataclass(frozen=True)
class Trial:
    """One adaptation, scored on the unseen cases."""

    task: Task
    model: str
    method: str
    k: int
    seed: int
    minutes: float
    work: Path

    @property
    def run(self) -> Path:
        """The folder of the adapter."""
        name = f"{self.model}-{self.method}-k{self.k}-s{self.seed}-{self.minutes:g}min"
        return self.work / "runs" / self.task.folder.name / name

    @property
    def predictions(self) -> Path:
        """Where the unseen cases are segmented and scored."""
        return self.run / f"predictions-{len(self.task.scans)}"

    def commands(self) -> list[list[str]]:
        """What a user would type."""
        task = self.task
        pool = self.work / f"{task.folder.name}-pool.txt"
        pool.parent.mkdir(parents=True, exist_ok=True)
        pool.write_text("\n".join(task.pool))
        common = ["--model", self.model, "--workspace", str(self.work)]
        structures = ["--labels", task.structures] if task.structures else []
        chance = ["--k", str(self.k), "--seed", str(self.seed), "--cases", str(pool)]
        training = ["--minutes", str(self.minutes), "--set", "plateau=false", "--set", "crops=2"]
        run, predicted = str(self.run), str(self.predictions)
        return [
            ["plan", str(task.folder), *common],
            ["preprocess", str(task.folder), *common],
            ["adapt", str(task.folder), *common, "--method", self.method, *chance, *training, "-o", run, *structures],
            ["predict", *map(str, task.scans), "-o", predicted, "--adapter", run, "--workspace", str(self.work)],
            ["evaluate", predicted, str(task.labels), *structures],
        ]

    def metrics(self) -> dict[str, Any]:
        """The scores; the commands are run where there are none yet."""
        path = self.predictions / "metrics.json"
        for command in [] if path.is_file() else self.commands():
            subprocess.run([sys.executable, "-m", "fseft", *command], check=True, stdout=sys.stderr)
        found: dict[str, Any] = json.loads(path.read_text())
        return found


def row(trial: Trial) -> str:
    """One row of the table."""
    metrics = trial.metrics()
    trained = json.loads((trial.run / "run.json").read_text())["trained_parameters"]
    size = (trial.run / "adapter.safetensors").stat().st_size / 1e6
    return (
        f"| {trial.task.name} | {trial.model} | {trial.method} | {trained:,} | {size:.2f} "
        f"| {metrics['mean_dice']:.3f} | {metrics['mean_nsd']:.3f} | {metrics['mean_hd95_mm']:.1f} "
        f"| {len(metrics['cases'])} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.5)
    parser.add_argument("--k", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("benchmark-work"))
    parser.add_argument("--dry-run", action="store_true")
    options = parser.parse_args()
    data = Path(os.environ["FSEFT_REAL_DATA"])
    trials = [
        Trial(task, *one, options.k, options.seed, options.minutes, options.work)
        for task in (hippocampus(data), headneck(data))
        for one in ROWS
    ]
    if options.dry_run:
        for command in (command for trial in trials for command in trial.commands()):
            print("fseft", *command)
        return
    print("| data | model | method | trained parameters | MB | Dice | NSD 2 mm | HD95 mm | cases |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for trial in trials:
        print(row(trial), flush=True)


if __name__ == "__main__":
    main()
