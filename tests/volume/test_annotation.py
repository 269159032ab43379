"""Voxels that are not annotated: an ignore label, scribbles, and slices that nobody drew."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fseft.errors import FseftError
from fseft.schemas import Annotation
from fseft.volume.annotation import drawn_slices, is_annotated, mark_unannotated
from fseft.volume.label_values import UNANNOTATED
from fseft.volume.resample import resample_labels

label_maps = hnp.arrays(np.uint8, (5, 6, 7), elements=st.integers(0, 3))


def an_organ(shape=(34, 12, 10)):
    label = np.zeros(shape, np.uint8)
    label[2:-2, 3:9, 2:8] = 1
    label[5:20, 4:6, 3:5] = 2
    return label


@given(labels=label_maps, ignore=st.integers(1, 4))
def test_an_ignore_label_marks_its_voxels_and_no_other(labels, ignore):
    marked = mark_unannotated(labels, Annotation(ignore=ignore))
    np.testing.assert_array_equal(is_annotated(marked), labels != ignore)
    np.testing.assert_array_equal(marked[labels != ignore], labels[labels != ignore])


def test_labels_that_are_annotated_in_full_are_not_even_copied():
    label = an_organ()
    assert mark_unannotated(label, Annotation()) is label
    np.testing.assert_array_equal(mark_unannotated(label, Annotation(slices="auto")), label)


def test_scribbles_of_the_background_count_as_background():
    marked = mark_unannotated(np.array([[[0, 1, 4]]]), Annotation(ignore=0, background=4))
    assert marked.ravel().tolist() == [UNANNOTATED, 1, 0]


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("step", [2, 3, 5])
def test_slices_drawn_one_in_n_are_found_along_any_axis(axis, step):
    label = np.moveaxis(an_organ(), 0, axis)
    kept = np.zeros(label.shape, bool)
    np.moveaxis(kept, axis, 0)[4::step] = True
    sparse = label * kept
    found_axis, slices = drawn_slices(sparse > 0)
    assert found_axis == axis
    assert np.flatnonzero(slices).tolist() == list(range(4, 32, step))
    annotated = is_annotated(mark_unannotated(sparse, Annotation(slices="auto")))
    np.testing.assert_array_equal(np.moveaxis(annotated, axis, 0).all((1, 2)), slices)
    assert annotated.mean() == pytest.approx(slices.mean())


def test_organs_in_two_places_are_not_single_slices():
    kidneys = np.zeros((30, 12, 10), np.uint8)
    kidneys[3:11, 3:9, 2:8] = kidneys[18:27, 3:9, 2:8] = 1
    assert drawn_slices(kidneys > 0) is None


def test_one_drawn_slice_is_a_flat_structure():
    lesion = np.zeros((30, 12, 10), np.uint8)
    lesion[7, 3:9, 2:8] = 1
    assert drawn_slices(lesion > 0) is None


def test_a_structure_with_the_value_of_what_does_not_count_is_refused():
    with pytest.raises(FseftError, match="contains the label 65535"):
        mark_unannotated(np.array([[[UNANNOTATED, 0, 1]]]), Annotation(ignore=0, background=5))


@settings(max_examples=40)
@given(labels=label_maps, shape=st.tuples(*[st.integers(2, 12)] * 3))
def test_resampling_keeps_what_is_annotated_and_adds_no_other_label(labels, shape):
    marked = mark_unannotated(labels, Annotation(ignore=3))
    resampled = resample_labels(marked, shape)
    assert set(np.unique(resampled)) <= set(np.unique(marked))
    if shape == labels.shape:
        np.testing.assert_array_equal(resampled, marked)


def test_every_fifth_slice_survives_a_coarser_grid():
    label = np.full((60, 8, 8), UNANNOTATED, np.uint16)
    label[2::5] = 0
    label[2::5, 2:6, 2:6] = 3
    coarse = resample_labels(label, (24, 8, 8))
    assert (is_annotated(coarse).all((1, 2))).sum() >= 12
    np.testing.assert_array_equal((coarse == 3).any(0), (label == 3).any(0))
    np.testing.assert_array_equal((coarse == 0).any(0), (label == 0).any(0))


@given(labels=label_maps, new=st.integers(1, 5), axis=st.integers(0, 2))
def test_a_coarser_voxel_is_annotated_if_any_voxel_within_it_is(labels, new, axis):
    marked = mark_unannotated(labels, Annotation(ignore=3))
    shape = list(labels.shape)
    shape[axis] = new
    coarse = np.moveaxis(resample_labels(marked, tuple(shape)), axis, 0)
    step = labels.shape[axis] / new
    annotated = np.moveaxis(is_annotated(marked), axis, 0)
    for number, plane in enumerate(coarse):
        inside = annotated[int(number * step + 1e-6) : int(np.ceil((number + 1) * step - 1e-6))]
        np.testing.assert_array_equal(is_annotated(plane), inside.any(0))


def test_every_second_slice_survives_half_the_resolution():
    label = np.full((20, 4, 4), UNANNOTATED, np.uint16)
    label[::4] = 1
    assert (resample_labels(label, (10, 4, 4)) == 1).sum() == 5 * 16
