"""Dice after training on incomplete labels: slices, scribbles, and structures that are not drawn.

`FSEFT_REAL_DATA=... OMP_NUM_THREADS=1 python benchmarks/sparse_labels.py [--parts
hippocampus,headneck] [--steps 300] [--seeds 0,1,2] [--test-cases 20] [--work DIR]` adapts
`phantom-tiny` by LoRA to five cases and prints a Markdown table for each part.

`hippocampus`: the full labels of five cases, the same labels in every fifth slice
(`--annotated-slices auto`), and scribbles (in every third slice one stroke along each structure and
one around them, all other voxels ignored), scored on the same other cases.

`headneck`: five of the `partial` cases, with the structures that are not drawn left out of the loss
(`--missing-label unannotated`), and counted as background, scored on the `test` cases.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from fseft import api
from fseft.volume.image import read_labels, write_labels

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Labels = np.ndarray[Any, np.dtype[np.integer[Any]]]

K = 5
EVERY_SLICE, EVERY_SCRIBBLE = 5, 3
BACKGROUND_STROKE = 3
CORE = ("brainstem", "spinal_cord", "parotid_right", "parotid_left", "mandible")


def every_fifth_slice(label: Labels) -> Labels:
    """Returns a label with the structures of every fifth slice with a structure."""
    drawn = np.flatnonzero(label.any((1, 2)))
    sparse = np.zeros_like(label)
    chosen = drawn[EVERY_SLICE // 2 :: EVERY_SLICE]
    sparse[chosen] = label[chosen]
    return sparse


def scribbles(label: Labels) -> Labels:
    """Returns strokes: along each structure, and around all, in every third slice."""
    strokes = np.zeros_like(label)
    drawn = np.flatnonzero(label.any((1, 2)))
    for number in drawn[EVERY_SCRIBBLE // 2 :: EVERY_SCRIBBLE]:
        plane = label[number]
        distance = ndimage.distance_transform_edt(plane == 0)
        strokes[number][(distance >= 3) & (distance < 4)] = BACKGROUND_STROKE
        for value in np.unique(plane[plane > 0]):
            for row in np.flatnonzero((plane == value).any(1)):
                columns = np.flatnonzero(plane[row] == value)
                strokes[number, row, columns[len(columns) // 2]] = value
    return strokes


def paired_cases(source: Path) -> list[str]:
    """Returns the names of cases with an image and a label."""
    paired = {path.name[:-7] for path in (source / "labelsTr").glob("*.nii.gz")}
    paired &= {path.name[:-7] for path in (source / "imagesTr").glob("*.nii.gz")}
    return sorted(paired)


def write_dataset(
    source: Path,
    folder: Path,
    cases: Sequence[str],
    change: Callable[[Labels], Labels],
    **labels: int,
) -> Path:
    """Writes a dataset of some cases of `hippocampus` with other labels."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "labelsTr").mkdir(parents=True)
    (folder / "imagesTr").mkdir()
    declared = {
        "channel_names": {"0": "T1"},
        "labels": {"background": 0, "anterior": 1, "posterior": 2, **labels},
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(declared))
    for case in cases:
        (folder / "imagesTr" / f"{case}_0000.nii.gz").symlink_to(
            (source / "imagesTr" / f"{case}.nii.gz").resolve()
        )
        stored = read_labels(source / "labelsTr" / f"{case}.nii.gz")
        write_labels(
            folder / "labelsTr" / f"{case}.nii.gz", change(stored.array[0]), stored.geometry
        )
    return folder


def dice(
    data: Path, tests: Path, out: Path, steps: int, seed: int, **options: Any
) -> dict[str, float]:
    """Adapts and scores; returns the Dice of each structure."""
    adapter = api.adapt(
        data,
        "phantom-tiny",
        "lora",
        K,
        seed=seed,
        epochs=max(1, steps // K),
        device="cpu",
        output=out / "run",
        workspace=out.parent,
        overwrite=True,
        **options,
    )
    shutil.rmtree(out / "predicted", ignore_errors=True)
    api.predict(tests / "imagesTr", adapter, out / "predicted", device="cpu")
    scores = api.evaluate(out / "predicted", tests / "labelsTr", metrics=["dice"], workers=1)
    chosen = options.get("labels") or scores.classes
    return {name: 100 * (scores.classes[name].mean["dice"] or 0.0) for name in chosen}


def hippocampus(data: Path, work: Path, options: argparse.Namespace) -> None:
    """Prints the table of full labels, slices and scribbles."""
    source = data / "hippocampus"
    order = np.random.default_rng(0).permutation(paired_cases(source)).tolist()
    held_out, pool = order[: options.test_cases], order[options.test_cases :]
    tests = write_dataset(source, work / "tests", held_out, lambda label: label)
    ways: dict[str, tuple[Callable[[Labels], Labels], dict[str, int], dict[str, Any]]] = {
        "full labels": (lambda label: label, {}, {}),
        "every fifth slice": (every_fifth_slice, {}, {"annotated_slices": "auto"}),
        "every fifth slice, others as background": (every_fifth_slice, {}, {}),
        "scribbles": (scribbles, {"background": BACKGROUND_STROKE, "ignore": 0}, {}),
    }
    results: dict[str, list[float]] = {way: [] for way in ways}
    for seed in options.seeds:
        cases = np.random.default_rng(seed).permutation(pool)[:K].tolist()
        for number, (way, (change, labels, rules)) in enumerate(ways.items()):
            folder = write_dataset(source, work / f"train-{number}", cases, change, **labels)
            out = work / f"out-{number}"
            found = dice(folder, tests, out, options.steps, seed, **rules)
            results[way].append(mean(found.values()))
            print(f"seed {seed}, {way}: {results[way][-1]:.1f}", flush=True)
    print(f"\n| hippocampus, {options.steps} steps | Dice, % | of the full labels, % |")
    print("|---|---:|---:|")
    full = mean(results["full labels"])
    for way, values in results.items():
        print(f"| {way} | {_cell(values)} | {100 * mean(values) / full:.1f} |")


def headneck(data: Path, work: Path, options: argparse.Namespace) -> None:
    """Prints the table of masked and naive training on partial cases."""
    source = data / "headneck"
    splits = json.loads((source / "splits.json").read_text())
    tests = work / "headneck-tests"
    shutil.rmtree(tests, ignore_errors=True)
    for place, original in (("imagesTr", "imagesTs"), ("labelsTr", "labelsTs")):
        (tests / place).mkdir(parents=True)
        for path in sorted((source / original).iterdir())[: options.test_cases]:
            (tests / place / path.name).symlink_to(path.resolve())
    shutil.copy(source / "dataset.json", tests)
    rules = {"masked": "unannotated", "as background": "absent"}
    results: dict[str, list[dict[str, float]]] = {way: [] for way in rules}
    for seed in options.seeds:
        for way, rule in rules.items():
            out = work / f"headneck-{rule}"
            chosen = {"labels": CORE, "cases": splits["partial"], "missing_label": rule}
            results[way].append(dice(source, tests, out, options.steps, seed, **chosen))
            print(f"seed {seed}, {way}: {mean(results[way][-1].values()):.1f}", flush=True)
    print(f"\n| headneck, Dice in %, {options.steps} steps | {' | '.join(rules)} |")
    print("|---|---:|---:|")
    for name in (*CORE, "mean"):
        cells = [
            _cell([mean(one.values()) if name == "mean" else one[name] for one in results[way]])
            for way in rules
        ]
        print(f"| {name} | {' | '.join(cells)} |")


def _cell(values: Sequence[float]) -> str:
    spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
    return f"{mean(values):.1f}{spread}"


def main() -> None:
    """Measures each part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", default="hippocampus,headneck")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--test-cases", type=int, default=20)
    parser.add_argument("--work", type=Path)
    options = parser.parse_args()
    options.seeds = [int(seed) for seed in options.seeds.split(",")]
    data = Path(os.environ["FSEFT_REAL_DATA"])
    work = (options.work or Path(tempfile.mkdtemp())).absolute()
    for part in options.parts.split(","):
        {"hippocampus": hippocampus, "headneck": headneck}[part](data, work, options)


if __name__ == "__main__":
    main()
