"""The values of label maps: no cost depends on how large a value is."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fseft.errors import FseftError
from fseft.metrics.scoring import score_case
from fseft.metrics.selection import select_metrics
from fseft.reporting.figures import best_slice
from fseft.volume.cache import open_case, write_case
from fseft.volume.geometry import Geometry
from fseft.volume.image import read_labels, write_labels, write_volume
from fseft.volume.label_values import consecutive, label_boxes, present_values, translate
from fseft.volume.resample import resample_labels

ATLAS = 312_782_546
"""The largest id of the Allen Mouse Brain Atlas in its common coordinate framework."""

values = st.sampled_from([0, 1, 7, 255, 256, 65_535, 65_536, ATLAS, 2**32 - 1])
maps = arrays.arrays(
    np.uint32, arrays.array_shapes(min_dims=3, max_dims=3, max_side=5), elements=values
)


@settings(max_examples=50)
@given(maps)
def test_values_numbers_and_boxes_are_those_of_numpy(labels):
    expected = sorted(set(labels.ravel().tolist()) - {0})
    assert present_values(labels) == expected
    numbers, found = consecutive(labels)
    assert found == expected
    assert np.array_equal(np.array([0, *found], np.uint32)[numbers], labels)
    boxes = label_boxes(labels)
    assert list(boxes) == expected
    for value, box in boxes.items():
        assert (labels[box] == value).sum() == (labels == value).sum()


@settings(max_examples=50)
@given(maps, st.dictionaries(values.filter(bool), st.integers(0, 200)))
def test_translated_values_are_the_new_ones_and_others_are_background(labels, new_values):
    translated = translate(labels, new_values, np.uint8)
    expected = [new_values.get(value, 0) for value in labels.ravel().tolist()]
    assert translated.ravel().tolist() == expected


def everything_done_to(labels, folder):
    """Every step of the package whose cost could depend on a label value."""
    geometry = Geometry(labels.shape, np.eye(4))
    write_labels(folder / "label.nii.gz", labels, geometry)
    read = read_labels(folder / "label.nii.gz").array[0]
    resampled = resample_labels(read, (10, 10, 10))
    image = np.zeros((1, *read.shape), np.int16)
    write_case(folder, "a", image, read, {}, classes=present_values(read))
    cached = open_case(folder, "a")
    scores = score_case(
        read, read, {"wild": ATLAS}, (1, 1, 1), 2.0, metrics=select_metrics(["dice"])
    )
    return read, resampled, cached, scores, best_slice(read, 0)


def test_no_step_needs_memory_by_the_value_of_a_voxel(tmp_path):
    labels = np.zeros((16, 16, 16), np.uint32)
    labels[2:6, 2:6, 2:6] = 1
    labels[8:12, 8:12, 8:12] = ATLAS
    everything_done_to(labels, tmp_path)  # imports, and NumPy's own tables
    tracemalloc.start()
    try:
        read, resampled, cached, scores, _ = everything_done_to(labels, tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64_000_000
    assert np.array_equal(read, labels)
    assert present_values(resampled) == [1, ATLAS]
    assert cached.classes == (1, ATLAS)
    assert scores["wild"].metrics["dice"] == 1


@pytest.mark.parametrize("value", [2.0**32, 1e30])
def test_a_value_beyond_32_bits_is_refused_with_the_file_and_the_value(tmp_path, value):
    array = np.zeros((1, 4, 4, 4))
    array[0, 1, 1, 1] = value
    path = tmp_path / "label.nii.gz"
    write_volume(path, array, Geometry((4, 4, 4), np.eye(4)))
    with pytest.raises(
        FseftError, match=rf"label.nii.gz: contains the label value {value:.0f}|e\+30"
    ):
        read_labels(path)
