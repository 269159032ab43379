"""Dice on `hippocampus` with and without scans without labels, as a Markdown table.

    FSEFT_REAL_DATA=... python benchmarks/unlabelled.py [--k 1,3,5] [--seeds 0] [--steps 200]
        [--scans 20] [--test-cases 20] [--validate] [--rows labelled,average,unlabelled,time]
        [--work DIR]

Adapts `phantom-tiny` by LoRA on one core and scores other cases, which are the same for all rows:

- `labelled`: the k cases alone;
- `average`: the same, with the moving average of the weights that the teacher is;
- `unlabelled`: as many steps, with scans without labels (`--unlabelled`) as well;
- `time`: the k cases alone, for as many steps as take the CPU time of `unlabelled`.

The scans without labels are neither training nor test cases. `--validate` scores other cases, on
which settings are chosen. Results are stored in --work: an interrupted benchmark resumes.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from sparse_labels import paired_cases, write_dataset

from fseft import api
from fseft.adaptation.request import TEACHER_DECAY

ROWS = ("labelled", "average", "unlabelled", "time")
VALIDATION_CASES = 12
MODEL, METHOD = "phantom-tiny", "lora"


@dataclass(frozen=True)
class Split:
    """Datasets of cases that do not overlap, except for those of several seeds."""

    tests: Path
    scans: Path
    training: dict[int, Path]


@dataclass(frozen=True)
class Trial:
    """A training and its score."""

    row: str
    k: int
    seed: int
    steps: int
    split: Split
    work: Path

    @property
    def folder(self) -> Path:
        """Folder of the run and its predictions."""
        name = f"{self.row}-k{self.k}-s{self.seed}-{self.steps}"
        return self.work / f"{self.split.tests.name}-runs" / name

    def result(self) -> dict[str, float]:
        """Returns Dice in percent and CPU seconds of the training, computed unless stored."""
        stored = self.folder / "result.json"
        if not stored.is_file():
            began = time.process_time()
            adapter = self._adapt()
            seconds = time.process_time() - began
            stored.write_text(json.dumps({"dice": self._dice(adapter), "seconds": seconds}))
        values: dict[str, float] = json.loads(stored.read_text())
        print(f"{self.folder.name}: {values['dice']:.1f}, {values['seconds']:.0f} s", flush=True)
        return values

    def _adapt(self) -> api.Adapter:
        options: dict[str, Any] = {}
        if self.row == "average":
            options["ema_decay"] = TEACHER_DECAY
        if self.row == "unlabelled":
            options["unlabelled"] = self.split.scans / "imagesTr"
        return api.adapt(
            self.split.training[self.seed],
            MODEL,
            METHOD,
            self.k,
            seed=self.seed,
            epochs=max(1, round(self.steps / self.k)),
            device="cpu",
            output=self.folder,
            workspace=self.work,
            overwrite=True,
            **options,
        )

    def _dice(self, adapter: api.Adapter) -> float:
        predictions = self.folder / "predictions"
        api.predict(self.split.tests / "imagesTr", adapter, predictions, device="cpu")
        labels = self.split.tests / "labelsTr"
        scores = api.evaluate(predictions, labels, metrics=["dice"], workers=1)
        return mean(100 * (summary.mean["dice"] or 0.0) for summary in scores.classes.values())


def write_split(source: Path, work: Path, options: argparse.Namespace) -> Split:
    """Writes test or validation cases, scans and training cases, as datasets."""
    order = np.random.default_rng(0).permutation(paired_cases(source)).tolist()
    sizes = np.cumsum([options.test_cases, VALIDATION_CASES, options.scans])
    tests, validation, scans, pool = (part.tolist() for part in np.split(order, sizes))

    def write(name: str, cases: list[str]) -> Path:
        folder = work / name
        return folder if folder.is_dir() else write_dataset(source, folder, cases, lambda x: x)

    largest = max(numbers(options.k))
    training = {
        seed: write(
            f"train-s{seed}", np.random.default_rng(seed).permutation(pool)[:largest].tolist()
        )
        for seed in numbers(options.seeds)
    }
    scored = ("validation", validation) if options.validate else ("tests", tests)
    return Split(write(*scored), write(f"scans-{options.scans}", scans), training)


def numbers(text: str) -> list[int]:
    """Returns the numbers of `1,3,5`."""
    return [int(part) for part in text.split(",")]


def lines(split: Split, options: argparse.Namespace) -> list[str]:
    """Returns the lines of the table."""
    found: dict[tuple[int, str], list[dict[str, float]]] = {}
    for k in numbers(options.k):
        for seed in numbers(options.seeds):
            results: dict[str, dict[str, float]] = {}
            for row in options.rows.split(","):
                steps = options.steps
                if row == "time":
                    seconds = [results[name]["seconds"] for name in ("unlabelled", "labelled")]
                    steps = round(options.steps * seconds[0] / seconds[1])
                trial = Trial(row, k, seed, steps, split, options.work)
                results[row] = {"steps": steps, **trial.result()}
                found.setdefault((k, row), []).append(results[row])
    table = ["", "| k | row | seeds | steps | CPU s | Dice, % |", "|---:|---|---:|---:|---:|---:|"]
    for (k, row), values in found.items():
        means = {name: mean(value[name] for value in values) for name in values[0]}
        cells = (len(values), f"{means['steps']:.0f}", f"{means['seconds']:.0f}")
        table.append(f"| {k} | {row} | {' | '.join(map(str, cells))} | {means['dice']:.1f} |")
    return table


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--k", default="1,3,5")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--scans", type=int, default=20)
    parser.add_argument("--test-cases", type=int, default=20)
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--validate", action="store_true")
    parser.add_argument("--work", type=Path, default=Path("benchmark-work"))
    options = parser.parse_args()
    source = Path(os.environ["FSEFT_REAL_DATA"]) / "hippocampus"
    split = write_split(source, options.work, options)
    print("\n".join(lines(split, options)))


if __name__ == "__main__":
    main()
