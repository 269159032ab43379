"""Masked and naive training (unannotated counts as background) on partially labelled cases.

`FSEFT_REAL_DATA=... OMP_NUM_THREADS=1 python benchmarks/partial_labels.py [--steps 1200]
[--seeds 0,1,2] [--work DIR]` trains two models and prints a Markdown table: the number of
training cases in which each structure is unannotated, its Dice on the test cases of `headneck`,
mean and standard deviation over seeds, and the mean of each seed. Both use the 60 complete and
40 partial cases, the same network, crops and steps. With `--keep 2` each case keeps the labels
of two random structures, as where datasets overlap only partly.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import tempfile
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING

import numpy as np

from fseft import api
from fseft.anatomy.vocabulary import resolve_names
from fseft.evaluation.matching import match_files
from fseft.evaluation.run import evaluate
from fseft.metrics.statistics import paired_difference
from fseft.parallel import map_cases
from fseft.pretraining.configure import DEFAULT_TRAINING, PretrainRequest
from fseft.pretraining.datasets import prepare_training_datasets
from fseft.pretraining.run import pretrain
from fseft.volume.image import read_labels, write_labels
from fseft.workspace import Workspace

if TYPE_CHECKING:
    from fseft.metrics.scores import Scores

CORE = ("brainstem", "spinal_cord", "parotid_right", "parotid_left", "mandible")
WAYS = {"masked": "annotated", "naive": "none"}
HPARAMS = {"channels": [8, 16, 32, 64], "features": 8}


def request(data: Path, name: str, masking: str, steps: int, seed: int) -> PretrainRequest:
    """Returns a pre-training of a small network on crops of 48 voxels, 190 x 190 x 120 mm."""
    return PretrainRequest(
        (api.read_dataset(data),),
        name,
        hparams=HPARAMS,
        labels=CORE,
        missing_label={"": "unannotated"},
        masking=masking,  # type: ignore[arg-type]
        validation_fraction=0.0,
        window=(-200, 500),
        spacing_mm=(3.9, 3.9, 2.5),
        patch_size=(48, 48, 48),
        training=DEFAULT_TRAINING.model_copy(update={"epochs": 10, "learning_rate": 3e-3}),
        steps_per_epoch=max(1, steps // 10),
        seed=seed,
        device="cpu",
    )


def with_fewer_labels(data: Path, folder: Path, keep: int) -> Path:
    """Copies a dataset; each training case keeps the labels of some structures."""
    if not (folder / "dataset.json").is_file():
        values = json.loads((data / "dataset.json").read_text())["labels"]
        (folder / "labelsTr").mkdir(parents=True, exist_ok=True)
        for path in sorted((data / "labelsTr").iterdir()):
            volume = read_labels(path)
            drawn = [values[name] for name in CORE if values[name] in volume.array]
            kept = random.Random(path.name).sample(drawn, min(keep, len(drawn)))
            labels = volume.array[0] * np.isin(volume.array[0], kept)
            write_labels(folder / "labelsTr" / path.name, labels, volume.geometry)
        for name in ("imagesTr", "imagesTs", "labelsTs"):
            (folder / name).unlink(missing_ok=True)
            (folder / name).symlink_to((data / name).resolve())
        shutil.copy(data / "dataset.json", folder)  # last: it says that the dataset is whole
    return folder


def score(asked: PretrainRequest, store: Workspace) -> Scores:
    """Pre-trains, then segments the test cases with the model's head."""
    data = asked.datasets[0].folder
    pretrain(asked, store)
    folder = store.root / f"{asked.name}-run"
    adapter = api.adapt(
        data,
        asked.name,
        "zero-shot",
        k=1,
        labels=CORE,
        device="cpu",
        output=folder,
        workspace=store,
    )
    out = store.root / f"{asked.name}-predicted"
    api.predict(data / "imagesTs", adapter, out, device="cpu")
    return evaluate(match_files(out, data / "labelsTs"), workers=1)


def main() -> None:
    """Trains both ways with each seed and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument(
        "--keep", type=int, help="structures that stay labelled in each case; all without"
    )
    parser.add_argument("--work", type=Path)
    options = parser.parse_args()
    data = Path(os.environ["FSEFT_REAL_DATA"]) / "headneck"
    store = Workspace(options.work or Path(tempfile.mkdtemp()))
    if options.keep:
        data = with_fewer_labels(data, store.root / f"headneck-{options.keep}", options.keep)
    seeds = [int(seed) for seed in options.seeds.split(",")]
    asked = {
        (way, seed): request(
            data, f"{way}-{data.name}-{options.steps}-s{seed}", masking, options.steps, seed
        )
        for seed in seeds
        for way, masking in WAYS.items()
    }
    assembly = prepare_training_datasets(
        asked["naive", seeds[0]], store
    )  # here, before two processes would
    cases = assembly.training[0].cases
    places = {
        name: 1 + assembly.classes.index(resolved) for name, resolved in resolve_names(CORE).items()
    }
    missing = {
        name: sum(place not in case.drawn for case in cases) for name, place in places.items()
    }
    named = {one.name: one for one in asked.values()}
    found = map_cases(
        partial(score, store=store), named, workers=2, progress=lambda name: print(name, flush=True)
    )
    scores = {way: [found[asked[way, seed].name] for seed in seeds] for way in WAYS}
    print(f"\n| Dice, % ({options.steps} steps) | not drawn in | {' | '.join(WAYS)} |")
    print(f"|---|{'---:|' * (1 + len(WAYS))}")
    for name in (*CORE, "mean"):
        count = f"{missing[name]} of {len(cases)}" if name in missing else ""
        print(f"| {name} | {count} | {' | '.join(_cell(scores[way], name) for way in WAYS)} |")
    for number, seed in enumerate(seeds):
        cells = [_cell(scores[way][number : number + 1], "mean") for way in WAYS]
        print(f"| mean, seed {seed} | | {' | '.join(cells)} |")
    print(f"\nmasked minus naive, on the same cases: {_difference(*scores.values())}")


def _difference(masked: list[Scores], naive: list[Scores]) -> str:
    """Returns the mean over seeds, and its interval over samples of test cases."""
    cases = sorted(masked[0].cases)
    dice = [
        np.array(
            [
                [[one.cases[case][name].metrics["dice"] for name in CORE] for case in cases]
                for one in several
            ],
            float,
        )
        for several in (masked, naive)
    ]
    found = paired_difference(*dice)
    if found is None or found.low is None or found.high is None:
        return "-"
    return f"{100 * found.mean:+.2f} ({100 * found.low:+.2f} to {100 * found.high:+.2f}) points"


def _cell(scores: list[Scores], name: str) -> str:
    dice = [
        {name: 100 * (one.classes[name].mean["dice"] or 0.0) for name in CORE} for one in scores
    ]
    values = [mean(one.values()) if name == "mean" else one[name] for one in dice]
    return f"{mean(values):.1f} ± {stdev(values):.1f}" if len(values) > 1 else f"{values[0]:.1f}"


if __name__ == "__main__":
    main()
