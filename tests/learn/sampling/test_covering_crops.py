"""Crops that together show every structure: few, however many structures and cases there are."""

from __future__ import annotations

import numpy as np
import pytest

from fseft.learn.sampling.covering_crops import covering_crops
from fseft.learn.sampling.patch_sampler import CropSource
from fseft.schemas import Intensity
from fseft.volume.cache import open_case, write_case

SHAPE = (48, 40, 44)
SIDE = 24


def write_cubes(folder, name, values, rng):
    """A case with a cube of 4 voxels per structure, at random places without overlap."""
    grid = np.stack(np.meshgrid(*[np.arange(0, side - 4, 5) for side in SHAPE]), -1).reshape(-1, 3)
    label = np.zeros(SHAPE, np.uint16)
    for value, (i, j, k) in zip(values, rng.permutation(grid), strict=False):
        label[i : i + 4, j : j + 4, k : k + 4] = value
    write_case(folder, name, np.zeros((1, *SHAPE), np.int16), label, {}, classes=list(values))
    return open_case(folder, name)


def source(values):
    window = Intensity(scheme="window", low=0, high=1)
    classes = {value: index for index, value in enumerate(values, start=1)}
    return CropSource((SIDE, SIDE, SIDE), (window,), "ct", classes)


@pytest.mark.parametrize("seed", range(3))
def test_every_structure_of_every_case_is_shown_by_few_crops(seed, tmp_path):
    """100 structures; one of them in the last case only, and one in none."""
    rng = np.random.default_rng(seed)
    values = range(1, 102)
    shown_by = [values[:-2], values[:50], values[30:-1]]
    cases = [
        write_cubes(tmp_path, str(number), shown, rng) for number, shown in enumerate(shown_by)
    ]
    crops = covering_crops(source(values), cases, rng)
    shown = set()
    for case, start in crops:
        shown |= set(np.unique(source(values).read(case, start)[1]).tolist())
    assert shown == {*range(101)}  # with the background, and without the last structure
    assert len(crops) <= 20


def test_far_structures_have_a_crop_each(tmp_path):
    label = np.zeros(SHAPE, np.uint8)
    label[0, 0, 0], label[-1, -1, -1] = 1, 2
    write_case(tmp_path, "a", np.zeros((1, *SHAPE), np.int16), label, {}, classes=[1, 2])
    crops = covering_crops(source([1, 2]), [open_case(tmp_path, "a")], np.random.default_rng(0))
    assert len(crops) == 2


def test_cases_without_structures_need_no_crop(tmp_path):
    case = write_cubes(tmp_path, "a", [], np.random.default_rng(0))
    assert covering_crops(source([1, 2]), [case], np.random.default_rng(0)) == []
