"""Writes the data of `benchmarks/bench.py`: CT-like scans for nnU-Net and us, and pairs of labels.

Run: `python benchmarks/bench_data.py FOLDER`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK
from scipy import ndimage

Array = npt.NDArray[Any]

DATASET = "Dataset001_Bench"
STRUCTURES = ("large", "middle", "small", "tiny")
SCANS, SHAPE = 6, (94, 208, 208)
PAIRS, PAIR_SHAPE, PAIR_SPACING = 20, (96, 128, 128), (2.0, 1.5, 1.5)


def ellipsoids(random: np.random.Generator, shape: tuple[int, int, int]) -> Array:
    """Returns labels (i, j, k) of one ellipsoid per structure, of falling size."""
    grid = np.indices(shape, np.float32)
    labels = np.zeros(shape, np.uint8)
    for value in range(1, len(STRUCTURES) + 1):
        centre = random.uniform(0.35, 0.65, 3) * shape
        radii = np.array(shape) / (2.5 * 2**value)
        distance = sum(((grid[axis] - centre[axis]) / radii[axis]) ** 2 for axis in range(3))
        labels[np.asarray(distance) < 1] = value
    return labels


def write(array: Array, spacing: tuple[float, float, float], path: Path) -> None:
    """Writes an array (i, j, k) with spacing in mm along its axes."""
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(spacing[::-1])
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(image, str(path), useCompression=True)


def write_scans(folder: Path) -> None:
    """Writes a dataset in the layout of nnU-Net."""
    random = np.random.default_rng(0)
    for number in range(SCANS):
        labels = ellipsoids(random, SHAPE)
        noise = ndimage.gaussian_filter(random.standard_normal(SHAPE), 1.0)
        image = (40 + 80 * noise + 30 * labels).clip(-1024, 3000).astype(np.int16)
        spacing = (3.0 + 0.2 * (number % 3), 1.5, 1.5)
        write(image, spacing, folder / "imagesTr" / f"case{number}_0000.nii.gz")
        write(labels, spacing, folder / "labelsTr" / f"case{number}.nii.gz")
    document = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, **{name: i for i, name in enumerate(STRUCTURES, 1)}},
        "numTraining": SCANS,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(document), encoding="utf-8")


def write_pairs(folder: Path) -> None:
    """Writes references and predictions, which are references moved by a voxel."""
    random = np.random.default_rng(1)
    for number in range(PAIRS):
        reference = ellipsoids(random, PAIR_SHAPE)
        prediction = ndimage.shift(reference, (1, 1, 0), order=0)
        write(reference, PAIR_SPACING, folder / "references" / f"case{number}.nii.gz")
        write(prediction, PAIR_SPACING, folder / "predictions" / f"case{number}.nii.gz")


def main() -> None:
    """Writes both, unless they exist."""
    folder = Path(sys.argv[1])
    if not (folder / "complete").is_file():
        write_scans(folder / "raw" / DATASET)
        write_pairs(folder)
        (folder / "complete").touch()


if __name__ == "__main__":
    main()
