"""Dice of an adapter that starts from one of fewer cases, and of one that starts from the model.

`FSEFT_REAL_DATA=... OMP_NUM_THREADS=1 python benchmarks/continuation.py [--steps 200]
[--seeds 0] [--test-cases 20] [--work DIR]` adapts `phantom-tiny` by LoRA to five cases of
`hippocampus`, and to ten, which include them: from the model in as many steps, and from the
adapter of five cases (`--from`) in all, a half and a quarter of the steps. It prints a Markdown
table of the Dice on the same other cases.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

import numpy as np
from sparse_labels import paired_cases, write_dataset

from fseft import api

if TYPE_CHECKING:
    from collections.abc import Iterator

FEW, MORE = 5, 10
FRACTIONS = (1.0, 0.5, 0.25)


def rows(data: Path, tests: Path, work: Path, steps: int, seed: int) -> Iterator[tuple[str, float]]:
    """Yields what was trained, and its mean Dice in percent."""

    def adapted(name: str, k: int, steps: int, **options: Any) -> tuple[api.Adapter, float]:
        adapter = api.adapt(
            data,
            k=k,
            seed=seed,
            epochs=max(1, steps // k),
            device="cpu",
            output=work / f"{name}-s{seed}",
            workspace=work,
            **options,
        )
        out = work / f"{name}-s{seed}" / "predicted"
        api.predict(tests / "imagesTr", adapter, out, device="cpu")
        scores = api.evaluate(out, tests / "labelsTr", metrics=["dice"], workers=1)
        dice = [100 * (summary.mean["dice"] or 0.0) for summary in scores.classes.values()]
        return adapter, mean(dice)

    fresh = {"model": "phantom-tiny", "method": "lora"}
    few, dice = adapted("few", FEW, steps, **fresh)
    yield f"k={FEW}, {steps} steps", dice
    yield f"k={MORE}, {steps} steps", adapted("more", MORE, steps, **fresh)[1]
    for fraction in FRACTIONS:
        part = round(fraction * steps)
        _, dice = adapted(f"from-{part}", MORE, part, from_adapter=few)
        yield f"k={MORE} from the adapter of k={FEW}, {part} steps", dice


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--test-cases", type=int, default=20)
    parser.add_argument("--work", type=Path)
    options = parser.parse_args()
    source = Path(os.environ["FSEFT_REAL_DATA"]) / "hippocampus"
    work = options.work or Path(tempfile.mkdtemp())
    order = np.random.default_rng(0).permutation(paired_cases(source)).tolist()
    held_out, pool = order[: options.test_cases], order[options.test_cases :]
    tests = write_dataset(source, work / "tests", held_out, lambda label: label)
    results: dict[str, list[float]] = {}
    for seed in map(int, options.seeds.split(",")):
        cases = np.random.default_rng(seed).permutation(pool)[:MORE].tolist()
        data = write_dataset(source, work / f"train-s{seed}", cases, lambda label: label)
        for name, dice in rows(data, tests, work, options.steps, seed):
            results.setdefault(name, []).append(dice)
            print(f"seed {seed}, {name}: {dice:.1f}", flush=True)
    print("\n| hippocampus | Dice, % |\n|---|---:|")
    for name, values in results.items():
        print(f"| {name} | {mean(values):.1f} |")


if __name__ == "__main__":
    main()
