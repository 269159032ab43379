"""The Dice of `--method auto` against the best fixed method, and against the untrained model.

    FSEFT_REAL_DATA=... python benchmarks/auto_regret.py [--data hippocampus,torso-known]
        [--rows full,lora] [--k 1,5] [--seeds 0] [--minutes 1] [--validate]

A task is a dataset with a number of training cases and a seed; all trainings have the same CPU
time, whose sum is printed first. The regret is the Dice of the best of the fixed methods minus that
of `auto`, the harm is the Dice of `zero-shot` minus that of `auto`, where the model knows all
structures. The trainings are those of benchmarks/few_shot.py, which stores and resumes them.
"""

from __future__ import annotations

import statistics
import sys
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING

from few_shot import Trial, make_task, parse_options

if TYPE_CHECKING:
    import argparse

AUTO, UNTRAINED = "auto", "zero-shot"
FIXED = ("full", "lora")
FIXED_IF_KNOWN = ("linear-probe", "spatial-adapter", UNTRAINED)
"""Further fixed methods, for structures that the model knows."""
DATA = ("hippocampus", "headneck", "phantom", "phantom-known")
"""Tasks by default; `torso` and `torso-known` are slower."""
KNOWN = ("phantom-known", "torso-known")
GOAL_REGRET, GOAL_HARM = 0.01, 0.005
"""Dice that `auto` may lose on average, and to the untrained model on a task."""


@dataclass(frozen=True)
class Comparison:
    """Dice of `auto` and of the fixed methods on a task."""

    auto: Trial
    fixed: tuple[Trial, ...]

    @cached_property
    def best(self) -> Trial:
        """The fixed method with the highest Dice."""
        return max(self.fixed, key=Trial.dice)

    @property
    def regret(self) -> float:
        """Dice of the best fixed method minus that of `auto`."""
        return self.best.dice() - self.auto.dice()

    @property
    def untrained(self) -> float | None:
        """Dice of the untrained model, if it knows the structures."""
        return next((trial.dice() for trial in self.fixed if trial.row == UNTRAINED), None)

    @property
    def harm(self) -> float | None:
        """Dice of the untrained model minus that of `auto`."""
        return None if self.untrained is None else self.untrained - self.auto.dice()

    def line(self) -> str:
        """Returns the line of the table."""
        untrained = "" if self.untrained is None else f"{self.untrained:.3f}"
        harm = "" if self.harm is None else f"{self.harm:+.3f}"
        cells = (
            self.auto.task.name,
            self.auto.k,
            self.auto.seed,
            f"{self.auto.minutes:g}",
            f"{self.auto.dice():.3f}",
            f"{self.best.dice():.3f} ({self.best.row})",
            f"{self.regret:+.3f}",
            untrained,
            harm,
        )
        return f"| {' | '.join(map(str, cells))} |"


def summary(comparisons: list[Comparison]) -> str:
    """Returns the mean regret, and the fraction of the tasks without harm."""
    regret = statistics.mean(comparison.regret for comparison in comparisons)
    harms = [comparison.harm for comparison in comparisons if comparison.harm is not None]
    text = f"mean regret {regret:+.3f} over {len(comparisons)} tasks (goal: at most {GOAL_REGRET})"
    if not harms:
        return text
    harmless = sum(harm <= GOAL_HARM for harm in harms)
    return f"{text}; at most {GOAL_HARM} below zero-shot on {harmless} of {len(harms)} tasks"


def comparisons_of(options: argparse.Namespace) -> list[Comparison]:
    """Returns the comparisons that the options ask for, none of which has run yet."""
    comparisons = []
    for name in options.data.split(","):
        task = make_task(name, options)
        rows = [AUTO, *options.rows.split(","), *(FIXED_IF_KNOWN if name in KNOWN else ())]
        settings = product(
            map(int, options.k.split(",")),
            map(int, options.seeds.split(",")),
            map(float, options.minutes.split(",")),
        )
        for k, seed, minutes in settings:
            trials = [Trial(name, task, row, k, seed, minutes, options.work) for row in rows]
            comparisons.append(Comparison(trials[0], tuple(trials[1:])))
    return comparisons


def main() -> None:
    """Prints the table and the summary."""
    comparisons = comparisons_of(parse_options(__doc__ or "", DATA, FIXED))
    trials = [trial for each in comparisons for trial in (each.auto, *each.fixed)]
    minutes = sum(trial.minutes for trial in trials if trial.row != UNTRAINED)
    print(f"{len(trials)} runs, {minutes:g} CPU minutes of training", file=sys.stderr)
    print("| data | k | seed | CPU min | auto | best fixed | regret | zero-shot | harm |")
    print(f"|{'---|' * 9}", flush=True)
    for comparison in comparisons:
        print(comparison.line(), flush=True)
    print(f"\n{summary(comparisons)}")


if __name__ == "__main__":
    main()
