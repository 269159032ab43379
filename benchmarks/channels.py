"""Dice of `--channels first|mean|all` where a second channel adds little or nothing.

`FSEFT_REAL_DATA=... OMP_NUM_THREADS=1 python benchmarks/channels.py [--methods lora,linear-probe]
[--steps 100] [--seed 0] [--test-cases 10] [--work DIR]` adapts `phantom-tiny` to five cases of
`hippocampus` and prints a Markdown table. The channels are the scan, and its smoothed gradient
(`scipy.ndimage.gaussian_gradient_magnitude`, sigma 1 voxel) or zeros.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from fseft import api
from fseft.volume.image import read_volume, write_volume

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Image = np.ndarray[Any, np.dtype[np.float32]]

K = 5
SECOND: dict[str, Callable[[Image], Image]] = {
    "gradient": lambda image: ndimage.gaussian_gradient_magnitude(image, 1.0),
    "zeros": np.zeros_like,
}


def write_dataset(source: Path, folder: Path, cases: Sequence[str], second: str) -> Path:
    """Writes a dataset of some cases of `hippocampus`, with a second channel if it has a name."""
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    names = {"0": "T1", "1": f"T1 {second}"} if second else {"0": "T1"}
    labels = {"background": 0, "anterior": 1, "posterior": 2}
    declared = {"channel_names": names, "labels": labels, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(declared))
    for case in cases:
        volume = read_volume(source / "imagesTr" / f"{case}.nii.gz")
        image = volume.array.astype(np.float32)
        channels = [image, SECOND[second](image[0])[None]] if second else [image]
        for number, channel in enumerate(channels):
            path = folder / "imagesTr" / f"{case}_{number:04d}.nii.gz"
            write_volume(path, channel, volume.geometry)
        shutil.copy(source / "labelsTr" / f"{case}.nii.gz", folder / "labelsTr")
    return folder


def dice(train: Path, tests: Path, out: Path, options: argparse.Namespace, **choice: Any) -> float:
    """Adapts and scores; returns the mean Dice of the structures in percent."""
    adapter = api.adapt(
        train,
        "phantom-tiny",
        k=K,
        seed=options.seed,
        epochs=max(1, options.steps // K),
        device="cpu",
        output=out / "run",
        workspace=out,
        **choice,
    )
    api.predict(tests / "imagesTr", adapter, out / "predicted", device="cpu")
    scores = api.evaluate(out / "predicted", tests / "labelsTr", metrics=["dice"], workers=1)
    return 100 * mean(structure.mean["dice"] or 0.0 for structure in scores.classes.values())


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", default="lora,linear-probe")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--test-cases", type=int, default=10)
    parser.add_argument("--work", type=Path)
    options = parser.parse_args()
    work = options.work or Path(tempfile.mkdtemp())
    source = Path(os.environ["FSEFT_REAL_DATA"]) / "hippocampus"
    labelled = sorted(path.name[:-7] for path in (source / "labelsTr").glob("*.nii.gz"))
    order = np.random.default_rng(options.seed).permutation(labelled).tolist()
    parts = {"train": order[:K], "tests": order[K : K + options.test_cases]}
    print("| second channel | `--channels` | method | Dice |\n|---|---|---|---:|")
    for second in ("", *SECOND):
        folders = {
            name: write_dataset(source, work / f"{second or 'none'}-{name}", cases, second)
            for name, cases in parts.items()
        }
        for method in options.methods.split(","):
            modes = ("all", "mean", "first") if second else ("first",)
            for mode in modes if method != "linear-probe" else modes[-2:]:
                out = work / f"out-{second}-{method}-{mode}"
                choice: dict[str, Any] = {"method": method, "channels": mode}
                score = dice(folders["train"], folders["tests"], out, options, **choice)
                shown = f"{second or 'none'} | {mode if second else '-'} | {method}"
                print(f"| {shown} | {score:.1f} |", flush=True)


if __name__ == "__main__":
    main()
