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


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("stray", [[31], [0, 32], [0, 31, 33]])
def test_stray_slices_near_a_complete_organ_leave_it_complete(axis, stray):
    organ = np.zeros((34, 12, 10), np.uint8)
    organ[4:28, 3:9, 2:8] = 1
    organ[stray, 4:8, 3:7] = 1
    label = np.moveaxis(organ, 0, axis)
    assert drawn_slices(label > 0) is None
    assert is_annotated(mark_unannotated(label, Annotation(slices="auto"))).all()


def test_many_stray_voxels_near_a_thin_organ_leave_it_complete():
    organ = np.zeros((40, 12, 10), np.uint8)
    organ[2:6, 3:9, 2:8] = 1
    organ[8::2, 5, 5] = 1
    assert drawn_slices(organ > 0) is None


def test_flat_lesions_in_different_places_are_complete():
    lesions = np.zeros((30, 12, 10), np.uint8)
    lesions[7, 1:4, 1:4] = lesions[20, 8:11, 6:9] = 1
    assert drawn_slices(lesions > 0) is None


@settings(max_examples=60)
@given(start=st.integers(0, 8), depth=st.integers(2, 12), stray=st.integers(0, 23))
def test_an_organ_drawn_in_full_is_never_sparse_for_one_more_slice(start, depth, stray):
    organ = np.zeros((24, 9, 9), bool)
    organ[start : start + depth, 2:6, 2:6] = True
    organ[stray, 3:6, 3:6] = True
    assert drawn_slices(organ) is None


def test_one_drawn_slice_is_a_flat_structure():
    lesion = np.zeros((30, 12, 10), np.uint8)
    lesion[7, 3:9, 2:8] = 1
    assert drawn_slices(lesion > 0) is None


def test_a_structure_with_the_value_of_what_does_not_count_is_refused():
    label = np.array([[[UNANNOTATED, 0, 1]]], np.uint16)
    for annotation in (Annotation(), Annotation(ignore=0, background=5), Annotation(slices="auto")):
        with pytest.raises(FseftError, match="contains the label 65535"):
            mark_unannotated(label, annotation)


def test_the_largest_value_of_16_bits_may_be_the_ignore_label():
    label = np.array([[[UNANNOTATED, 0, 1]]], np.uint16)
    marked = mark_unannotated(label, Annotation(ignore=UNANNOTATED))
    assert is_annotated(marked).ravel().tolist() == [False, True, True]


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
