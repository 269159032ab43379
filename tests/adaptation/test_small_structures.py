"""With the default recipe and few steps, a small structure among large ones keeps its size."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fseft import api
from fseft.volume.geometry import Geometry
from fseft.volume.image import write_labels, write_volume

SHAPE = (48, 48, 48)
SPACING_MM = 4.0
LABELS = {"large": 1, "larger": 2, "small": 3}
SMALL = 3
SEMI_AXES = {1: (9, 8, 9), 2: (9, 11, 12), SMALL: (1.8, 2.0, 2.1)}  # voxels
BRIGHTNESS = {1: 120, 2: 220, SMALL: 320}


def scan(seed):
    """A noisy body with two large ellipsoids and one of 2 ml, and their labels."""
    rng = np.random.default_rng(seed)
    image, label = rng.normal(0, 20, SHAPE), np.zeros(SHAPE, np.uint8)
    grid = np.moveaxis(np.indices(SHAPE), 0, -1)
    for value, centre in ((1, (12, 14, 14)), (2, (32, 30, 30)), (SMALL, (14, 34, 12))):
        moved = grid - np.add(centre, rng.uniform(-2, 2, 3))
        inside = (np.square(moved / SEMI_AXES[value]).sum(-1) <= 1) & (label == 0)
        label[inside] = value
        image[inside] += BRIGHTNESS[value]
    return image.astype(np.int16)[None], label


@pytest.fixture
def dataset(tmp_path):
    """Four labelled cases, the last of which is not trained on."""
    folder = tmp_path / "ellipsoids"
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    declared = {"channel_names": {"0": "CT"}, "labels": {"background": 0, **LABELS}}
    (folder / "dataset.json").write_text(json.dumps({**declared, "file_ending": ".nii.gz"}))
    geometry = Geometry(SHAPE, np.diag([SPACING_MM] * 3 + [1]))
    for number, case in enumerate("abcd"):
        image, label = scan(number)
        write_volume(folder / "imagesTr" / f"{case}_0000.nii.gz", image, geometry)
        write_labels(folder / "labelsTr" / f"{case}.nii.gz", label, geometry)
    return folder


@pytest.mark.full
@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_structure_of_2_ml_is_neither_lost_nor_more_than_twice_as_large(
    method, dataset, tmp_path
):
    adapter = api.adapt(
        dataset,
        "phantom-tiny",
        method,
        3,
        cases=("a", "b", "c"),
        settings={"epochs": 15, "crops_per_step": 2, "early_stopping": False},
        device="cpu",
        workspace=tmp_path,
    )
    image, label = scan(3)
    predicted = adapter.segment(image, spacing_mm=(SPACING_MM,) * 3) == SMALL
    reference = label == SMALL
    assert 1.8 < reference.sum() * SPACING_MM**3 / 1000 < 2.4  # ml
    assert 2 * (predicted & reference).sum() > 0.5 * (predicted.sum() + reference.sum())
    assert predicted.sum() < 2 * reference.sum()
