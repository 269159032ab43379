"""Cross-validated Dice of k cases, compared with the Dice on unseen cases.

Run: `FSEFT_REAL_DATA=... python benchmarks/cross_validation.py`. Prints a Markdown table with a row
for each dataset and seed, by the commands of `real_volumes.py`, and the mean absolute difference.
Trainings have a number of epochs, so that other processes do not matter. An interrupted run
resumes.
"""

from __future__ import annotations

import argparse
import os
import statistics
from dataclasses import dataclass
from pathlib import Path

from real_volumes import MODEL, TASKS, TEST_CASES, Trial

from fseft.schemas import ExpectedDice, Run
from fseft.workspace import read_document


@dataclass(frozen=True)
class CrossValidatedTrial(Trial):
    """A trial whose adapter is cross-validated too."""

    def _training(self) -> list[str]:
        return [*super()._training(), "--cross-validate"]

    def expected(self) -> ExpectedDice:
        """Returns the cross-validated Dice."""
        result = read_document(self.run / "run.json", Run).cross_validation
        if result is None:
            raise RuntimeError(f"{self.run} was made without cross-validation")
        return result.mean


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=",".join(TASKS))
    parser.add_argument("--method", default="full")
    parser.add_argument("--epochs", type=int, default=20, help="epochs of k steps")
    parser.add_argument("--k", type=int, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--unseen", type=int, default=TEST_CASES, help="maximum of unseen cases")
    parser.add_argument("--work", type=Path, default=Path("cross-validation-work"))
    options = parser.parse_args()
    data = Path(os.environ["FSEFT_REAL_DATA"])
    print("| data | seed | cross-validated | 95 % interval | unseen | difference |")
    print("|---|---:|---:|---|---:|---:|", flush=True)
    differences = []
    for name in options.data.split(","):
        task = TASKS[name](data, options.unseen)
        for seed in options.seeds:
            trial = CrossValidatedTrial(
                task, MODEL, options.method, options.k, seed, options.work, epochs=options.epochs
            )
            row = trial.measured()
            if isinstance(row, str):
                raise SystemExit(row)
            dice, unseen = trial.expected(), row.scores["dice"]
            differences.append(dice.mean - unseen)
            interval = f"{dice.low:.3f} to {dice.high:.3f}"
            cells = [task.name, str(seed), f"{dice.mean:.3f}", interval, f"{unseen:.3f}"]
            print(f"| {' | '.join(cells)} | {differences[-1]:+.3f} |", flush=True)
    error = statistics.mean(map(abs, differences))
    print(f"\nMean absolute difference: {error:.3f} over {len(differences)} runs.")


if __name__ == "__main__":
    main()
