"""Every method on real volumes, CT and MR: one Markdown table.

`FSEFT_REAL_DATA=... python benchmarks/real_volumes.py [--data hippocampus,headneck] [--methods lora,full]` types the
commands of a user. Every row has the same support cases and crops, and the same unseen cases; scores are on the native
grid. Training takes --epochs; black-box methods, whose steps cost next to nothing, take their own number. The minutes
are those of one core that `fseft adapt` keeps busy, so that other work on the machine does not count. Rows that were
measured before are kept in --work; `--dry-run` prints the commands.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from fseft.registry import registry
from fseft.steps.models import SCRATCH

MODEL = "phantom-tiny"
HEAD = """\
| data | model | method | trained parameters | MB | min | Dice | NSD 2 mm | HD95 mm |
|---|---|---|---|---|---|---|---|---|"""


@dataclass(frozen=True)
class Task:
    """A dataset, the cases to learn from, and the unseen ones."""

    name: str
    folder: Path
    pool: tuple[str, ...]
    scans: tuple[Path, ...]
    labels: Path
    structures: str = ""


@dataclass(frozen=True)
class Budget:
    """How much is learned from, and for how long; the settings are those of `fseft adapt --set`."""

    k: int
    seed: int
    settings: tuple[str, ...]
    minutes: float | None = None


@dataclass(frozen=True)
class Row:
    """What one adaptation cost, and how well it segments the unseen cases."""

    trained_parameters: int
    megabytes: float
    minutes: float
    dice: float
    nsd: float
    hd95_mm: float


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


TASKS = {"hippocampus": hippocampus, "headneck": headneck}


def commands(task: Task, model: str, method: str, work: Path, budget: Budget) -> tuple[Path, list[list[str]]]:
    """The folder of the run, and what a user would type."""
    run = work / "runs" / task.folder.name / f"{model}-{method}-k{budget.k}-s{budget.seed}"
    pool = work / f"{task.folder.name}-pool.txt"
    pool.parent.mkdir(parents=True, exist_ok=True)
    pool.write_text("\n".join(task.pool))
    common = ["--model", model, "--workspace", str(work)]
    structures = ["--labels", task.structures] if task.structures else []
    adapt = ["adapt", str(task.folder), *common, "--method", method, "--k", str(budget.k), "--seed", str(budget.seed)]
    adapt += ["--cases", str(pool), "--output", str(run), *structures]
    adapt += [word for setting in budget.settings for word in ("--set", setting)]
    adapt += ["--minutes", str(budget.minutes)] if budget.minutes else []
    predicted = str(run / "predictions")
    return run, [
        ["preprocess", str(task.folder), *common],
        adapt,
        ["predict", *map(str, task.scans), "-o", predicted, "--adapter", str(run), "--workspace", str(work)],
        ["evaluate", predicted, str(task.labels), *structures],
    ]


def measure(task: Task, model: str, method: str, work: Path, budget: Budget) -> Row | str:
    """Run the commands; where `adapt` refuses the method, its line says why."""
    run, (preprocess, adapt, *rest) = commands(task, model, method, work, budget)
    kept = run / "row.json"
    if kept.is_file():
        return Row(**json.loads(kept.read_text()))
    fseft(preprocess)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    if refused := fseft(adapt):
        return refused
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    for step in rest:
        fseft(step)
    metrics = json.loads((run / "predictions" / "metrics.json").read_text())
    row = Row(
        trained_parameters=json.loads((run / "run.json").read_text())["trained_parameters"],
        megabytes=(run / "adapter.safetensors").stat().st_size / 1e6,
        minutes=(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / 60,
        dice=metrics["mean_dice"],
        nsd=metrics["mean_nsd"],
        hd95_mm=metrics["mean_hd95_mm"],
    )
    kept.write_text(json.dumps(vars(row)))
    return row


def fseft(arguments: list[str]) -> str:
    """Run one command; gives its line where it refuses its input.

    Raises:
        RuntimeError: It failed in another way.
    """
    command = [sys.executable, "-m", "fseft", *arguments]
    done = subprocess.run(command, check=False, stdout=sys.stderr, stderr=subprocess.PIPE, text=True)
    if done.returncode == 2:
        return done.stderr.strip().splitlines()[-1].removeprefix("error: ")
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
    return ""


def line(task: Task, model: str, method: str, row: Row | str) -> str:
    """One line of the table."""
    if isinstance(row, str):
        return f"| {task.name} | {model} | {method} | {row} |" + 5 * " |"
    return (
        f"| {task.name} | {model} | {method} | {row.trained_parameters:,} | {row.megabytes:.2f} | {row.minutes:.1f} "
        f"| {row.dice:.3f} | {row.nsd:.3f} | {row.hd95_mm:.1f} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=",".join(TASKS))
    parser.add_argument("--methods", default=",".join(registry().names("method")))
    parser.add_argument("--epochs", type=int, default=20, help="of 5 steps each at k = 5")
    parser.add_argument("--minutes", type=float, help="at most so many, where that is less")
    parser.add_argument("--k", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("benchmark-work"))
    parser.add_argument("--dry-run", action="store_true")
    options = parser.parse_args()
    cheap = Budget(options.k, options.seed, ("plateau=false", "crops=2"), options.minutes)
    dear = replace(cheap, settings=(f"epochs={options.epochs}", *cheap.settings))
    folder = Path(os.environ["FSEFT_REAL_DATA"])
    print(HEAD, flush=True)
    for task in (TASKS[name](folder) for name in options.data.split(",")):
        for method in options.methods.split(","):
            spec = registry().method(method)
            model = MODEL if spec.needs_model else SCRATCH
            budget = cheap if spec.access == "black-box" else dear
            if options.dry_run:
                for step in commands(task, model, method, options.work, budget)[1]:
                    print("fseft", *step)
            else:
                print(line(task, model, method, measure(task, model, method, options.work, budget)), flush=True)


if __name__ == "__main__":
    main()
