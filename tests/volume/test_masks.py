"""One mask per structure is read as one label map."""

from __future__ import annotations

import numpy as np
import pytest

from fseft.errors import FseftError
from fseft.plugin import Case
from fseft.volume.case_files import case_content
from fseft.volume.fingerprint import measure_case
from fseft.volume.geometry import Geometry
from fseft.volume.image import write_labels, write_volume
from fseft.volume.masks import read_masks

SHAPE = (6, 5, 4)


def written(folder, *slices, spacing=1.0):
    """Masks 1, 2, ... of the given planes."""
    paths = {}
    for value, planes in enumerate(slices, start=1):
        mask = np.zeros(SHAPE, np.uint8)
        mask[planes] = 1
        paths[value] = folder / f"mask_{value}_{spacing}.nii.gz"
        write_labels(paths[value], mask, Geometry(SHAPE, np.diag([spacing, 1, 1, 1])))
    return paths


def test_masks_become_the_values_that_they_stand_for(tmp_path):
    paths = written(tmp_path, slice(0, 2), slice(3, 4))
    labels = read_masks({7: paths[1], 300: paths[2]})
    assert labels.array.dtype == np.uint16
    assert labels.array[0, :, 0, 0].tolist() == [7, 7, 0, 300, 0, 0]


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (2, 1, 3)])
def test_the_smaller_structure_is_on_top(tmp_path, order):
    paths = written(tmp_path, slice(0, 5), slice(1, 4), slice(2, 3))
    labels = read_masks({value: paths[value] for value in order})
    assert labels.array[0, :, 0, 0].tolist() == [1, 2, 3, 2, 1, 0]


def test_an_empty_mask_draws_nothing(tmp_path):
    labels = read_masks(written(tmp_path, slice(0, 0), slice(0, 1)))
    assert set(np.unique(labels.array)) == {0, 2}


def test_a_mask_with_several_values_is_named(tmp_path, caplog):
    """It may number lesions, or be a label map of all structures by mistake."""
    paths = written(tmp_path, slice(0, 2), slice(3, 4))
    read_masks(paths)
    assert not caplog.messages
    mask = np.zeros(SHAPE, np.uint8)
    mask[:2], mask[3] = 1, 2
    write_labels(paths[1], mask, Geometry(SHAPE, np.eye(4)))
    assert read_masks(paths).array[0, :, 0, 0].tolist() == [1, 1, 0, 2, 0, 0]
    (message,) = caplog.messages
    assert f"{paths[1]}: is read as the mask of one structure" in message
    assert "(1 to 2)" in message


def test_masks_on_different_grids_are_refused(tmp_path):
    a, b = written(tmp_path, slice(0, 1)), written(tmp_path, slice(0, 1), spacing=2.0)
    with pytest.raises(
        FseftError, match=r"case x.*mask_1_2.0.*not on the grid of the other masks: spacing"
    ):
        read_masks({1: a[1], 2: b[1]}, case="x")


def test_a_case_with_masks_is_measured_and_keyed_by_what_they_stand_for(tmp_path):
    paths = written(tmp_path, slice(0, 2), slice(3, 4))
    image = tmp_path / "ct.nii.gz"
    noise = np.random.default_rng(0).normal(size=(1, *SHAPE)).astype(np.float32)
    write_volume(image, noise, Geometry(SHAPE, np.eye(4)))
    case, other = (
        Case(name="a", images=(image,), label=dict(zip(v, paths.values(), strict=True)))
        for v in ((1, 2), (1, 3))
    )
    found = measure_case(case, channels=("CT",), labels={"liver": 1, "spleen": 2}, body=False)
    assert found.volumes_mm3 == {1: 40.0, 2: 20.0}
    assert case_content(case) != case_content(other)
