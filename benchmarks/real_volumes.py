"""The five commands on real volumes, CT and MR: one Markdown table.

Run: `FSEFT_REAL_DATA=... python benchmarks/real_volumes.py --minutes 1.5`. Every row has the same support cases, the
same training time and the same unseen cases; scores are on the native grid. `--dry-run` prints the commands.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

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


def hippocampus(data: Path) -> Task:
    """MR of the hippocampus; the last 20 labelled cases are never learned from."""
    folder = data / "hippocampus"
    images = {path.name for path in (folder / "imagesTr").iterdir()}
    both = sorted(path.name for path in (folder / "labelsTr").iterdir() if path.name in images)
    pool = tuple(name.removesuffix(".nii.gz") for name in both[:-20])
    scans = tuple(folder / "imagesTr" / name for name in both[-20:])
    return Task("hippocampus (MR)", folder, pool, scans, folder / "labelsTr")


def headneck(data: Path) -> Task:
    """Planning CT; support from the completely contoured cases, all test cases scored."""
    folder = data / "headneck"
    complete = tuple(json.loads((folder / "splits.json").read_text())["complete"])
    core = "brainstem,spinal_cord,parotid_right,parotid_left,mandible"
    return Task("headneck (CT)", folder, complete, (folder / "imagesTs",), folder / "labelsTs", core)


def commands(task: Task, model: str, method: str, work: Path, options: argparse.Namespace) -> list[list[str]]:
    """What a user would type."""
    run = work / "runs" / task.folder.name / f"{model}-{method}"
    pool = work / f"{task.folder.name}-pool.txt"
    pool.parent.mkdir(parents=True, exist_ok=True)
    pool.write_text("\n".join(task.pool))
    common = ["--model", model, "--workspace", str(work)]
    structures = ["--labels", task.structures] if task.structures else []
    adapt = ["adapt", str(task.folder), *common, "--method", method, "--k", str(options.k), "--seed", str(options.seed)]
    adapt += ["--cases", str(pool), "--minutes", str(options.minutes), "--set", "plateau=false", "--set", "crops=2"]
    predicted = str(run / "predictions")
    return [
        ["plan", str(task.folder), *common],
        ["preprocess", str(task.folder), *common],
        [*adapt, "--output", str(run), *structures],
        ["predict", *map(str, task.scans), "-o", predicted, "--adapter", str(run), "--workspace", str(work)],
        ["evaluate", predicted, str(task.labels), *structures],
    ]


def score(task: Task, model: str, method: str, work: Path, options: argparse.Namespace) -> str:
    """Run the commands and give one row."""
    steps = commands(task, model, method, work, options)
    for step in steps:
        if options.dry_run:
            print("fseft", *step)
        else:
            subprocess.run([sys.executable, "-m", "fseft", *step], check=True, stdout=sys.stderr)
    if options.dry_run:
        return ""
    run = Path(steps[2][steps[2].index("--output") + 1])
    metrics = json.loads((run / "predictions" / "metrics.json").read_text())
    trained = json.loads((run / "run.json").read_text())["trained_parameters"]
    size = (run / "adapter.safetensors").stat().st_size / 1e6
    cases = len(metrics["cases"])
    return (
        f"| {task.name} | {model} | {method} | {trained:,} | {size:.2f} | {metrics['mean_dice']:.3f} "
        f"| {metrics['mean_nsd']:.3f} | {metrics['mean_hd95_mm']:.1f} | {cases} |"
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
    print("| data | model | method | trained parameters | MB | Dice | NSD 2 mm | HD95 mm | cases |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for task in (hippocampus(data), headneck(data)):
        for model, method in ROWS:
            print(score(task, model, method, options.work, options), flush=True)


if __name__ == "__main__":
    main()
