"""The embedded model and random weights of the same network, adapted for equal minutes.

Run: `FSEFT_REAL_DATA=... python benchmarks/embedded_model.py`. Prints a Markdown table of the
mean Dice and its deviation over seeds, on MR of the hippocampus and CT of head and neck, by the
commands of `real_volumes.py`. An interrupted run resumes. Minutes are wall-clock minutes: run
nothing else, except the other dataset on another core.
"""

from __future__ import annotations

import argparse
import os
import statistics
from pathlib import Path

from real_volumes import MODEL, TASKS, Row, Task, Trial


def dice(task: Task, model: str, method: str, k: int, options: argparse.Namespace) -> list[float]:
    """Returns the mean Dice on the unseen cases for each seed."""
    trials = [
        Trial(task, model, method, k, seed, options.work, minutes=options.minutes)
        for seed in options.seeds
    ]
    return [
        row.scores["dice"] for row in (trial.measured() for trial in trials) if isinstance(row, Row)
    ]


def row(task: Task, k: int, options: argparse.Namespace) -> str:
    """Returns the row of random weights, the probe, and the better white-box method."""
    scratch = dice(task, "none", "scratch", k, options)
    probe = dice(task, MODEL, "linear-probe", k, options)
    tuned = {method: dice(task, MODEL, method, k, options) for method in options.tuned.split(",")}
    best = max(tuned, key=lambda method: statistics.mean(tuned[method]))
    scores = " | ".join(map(_shown, (scratch, probe, tuned[best])))
    return f"| {task.name} | {k} | {scores} | {best} |"


def _shown(values: list[float]) -> str:
    return f"{statistics.mean(values):.3f} ± {statistics.pstdev(values):.3f}"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=",".join(TASKS))
    parser.add_argument(
        "--tuned", default="lora,full", help="methods that change the network; the best is shown"
    )
    parser.add_argument("--minutes", type=float, default=1.5)
    parser.add_argument("--k", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--unseen", type=int, default=16, help="unseen cases of each dataset that are scored"
    )
    parser.add_argument("--work", type=Path, default=Path("benchmark-work"))
    options = parser.parse_args()
    data = Path(os.environ["FSEFT_REAL_DATA"])
    print(f"| data | k | scratch | linear-probe | best of {options.tuned} | which |")
    print("|---|---|---|---|---|---|", flush=True)
    for task in (TASKS[name](data, options.unseen) for name in options.data.split(",")):
        for k in options.k:
            print(row(task, k, options), flush=True)


if __name__ == "__main__":
    main()
