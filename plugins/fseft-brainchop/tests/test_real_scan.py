"""The public weights on the real T1 scan: the volumes that its README lists."""

from __future__ import annotations

import json
from itertools import permutations, product

import numpy as np
import pytest

from fseft import api
from fseft.inference.model import open_model
from fseft.volume.geometry import Geometry, reorient, resampled_geometry
from fseft.volume.image import Volume, read_labels, read_volume, write_volume
from fseft.volume.preprocessing import LabelMerger, preprocess_volume
from fseft.volume.resample import resample_image

from .conftest import REAL_WEIGHTS

pytestmark = pytest.mark.real
SCAN = REAL_WEIGHTS / "t1_crop.nii.gz"
CODES = [
    "".join(letters) for pairs in permutations(("LR", "PA", "SI")) for letters in product(*pairs)
]
VOLUMES_MM3 = {
    "cerebral_white_matter": 487_948,
    "cerebral_cortex": 551_902,
    "lateral_ventricle": 20_439,
    "inferior_lateral_ventricle": 1_327,
    "cerebellum_white_matter": 23_110,
    "cerebellum_cortex": 114_125,
    "thalamus": 18_985,
    "caudate": 7_721,
    "putamen": 10_854,
    "pallidum": 3_582,
    "third_ventricle": 1_328,
    "fourth_ventricle": 1_447,
    "brainstem": 21_042,
    "hippocampus": 8_122,
    "amygdala": 3_576,
    "accumbens": 1_299,
    "ventral_diencephalon": 7_491,
}


@pytest.fixture
def imported(store):
    api.import_model("brainchop-18", REAL_WEIGHTS / "model18cls" / "model.json", store)
    return store


def volumes_mm3(scan, store, output):
    """Segments a scan, and returns the volume of each structure."""
    api.predict(scan, output=output, model="brainchop-18", workspace=store)
    labels = read_labels(output / f"{scan.name.partition('.')[0]}.nii.gz")
    counts = np.bincount(labels.array.ravel(), minlength=18)
    values = json.loads((output / "predictions.json").read_text())["labels"]
    voxel_mm3 = labels.geometry.voxel_volume_mm3
    return {name: counts[value] * voxel_mm3 for name, value in values.items()}


def test_volumes_are_those_of_the_table(imported, tmp_path):
    assert volumes_mm3(SCAN, imported, tmp_path) == pytest.approx(VOLUMES_MM3, rel=0.02)


@pytest.mark.parametrize("code", CODES)
def test_any_stored_orientation_gives_the_same(code, imported):
    """The network's input is equal, voxel by voxel, and its output returns to the same place."""
    preprocessing = open_model(api.get_model("brainchop-18")).manifest.preprocessing
    volume = read_volume(SCAN)
    array, geometry = reorient(volume.array, volume.geometry, code)
    expected = preprocess_volume(volume, None, preprocessing)
    prepared = preprocess_volume(Volume(array, geometry), None, preprocessing)
    np.testing.assert_array_equal(prepared.image, expected.image)
    assert prepared.statistics() == expected.statistics()
    assert prepared.box == expected.box
    scores = np.stack([np.zeros(prepared.geometry.shape), prepared.image[0] > 100.0])
    restored = []
    for transform in (expected, prepared):
        merger = LabelMerger.empty(transform.native, 1, np.uint8)
        merger.adder(transform, [0, 1], 1)(scores.astype(np.float32))
        restored.append(merger.labels)
    back, _ = reorient(restored[1], geometry, volume.geometry.orientation)
    np.testing.assert_array_equal(back, restored[0])


@pytest.mark.parametrize("spacing_mm", [0.8, 1.5])
def test_a_resampled_scan_has_similar_volumes(spacing_mm, imported, tmp_path):
    volume = read_volume(SCAN)
    geometry = resampled_geometry(volume.geometry, (spacing_mm,) * 3)
    array = np.rint(resample_image(volume.array, geometry.shape, order=1)).astype(np.uint8)
    scan = tmp_path / "t1.nii.gz"
    write_volume(scan, array, Geometry(geometry.shape, geometry.affine))
    measured = volumes_mm3(scan, imported, tmp_path / "out")
    assert measured == pytest.approx(VOLUMES_MM3, rel=0.1)
