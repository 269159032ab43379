"""Cleaning of label maps: largest components, small components and holes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fseft.volume.components import Cleaning, clean_labels

LABELS = arrays(np.uint8, (6, 5, 7), elements=st.integers(0, 2))
NAMES = {"liver": 1, "spleen": 2}


def cleaned(labels, *, voxel_volume_mm3=1000.0, **rules):
    result = labels.copy()
    clean_labels(result, NAMES, Cleaning(**rules), voxel_volume_mm3)
    return result


def components(mask):
    """Sizes of the 26-connected components, by a search over neighbours."""
    left = {tuple(map(int, voxel)) for voxel in np.argwhere(mask)}
    sizes = []
    while left:
        queue, size = [left.pop()], 0
        while queue:
            i, j, k = queue.pop()
            size += 1
            near = {
                (i + a, j + b, k + c) for a in (-1, 0, 1) for b in (-1, 0, 1) for c in (-1, 0, 1)
            }
            queue += left & near
            left -= near
        sizes.append(size)
    return sorted(sizes)


@given(LABELS)
def test_the_largest_component_of_each_named_structure_remains(labels):
    found = cleaned(labels, largest_component=("liver",))
    assert components(found == 1) == components(labels == 1)[-1:]
    np.testing.assert_array_equal(found == 2, labels == 2)
    assert (
        components(cleaned(labels, largest_component=("all",)) == 2)
        == (components(labels == 2)[-1:])
    )


@given(LABELS, st.integers(1, 8))
def test_components_below_the_volume_are_removed_from_all_structures(labels, volume):
    found = cleaned(labels, min_volume_ml=volume)  # a voxel is 1 ml
    for value in NAMES.values():
        expected = [size for size in components(labels == value) if size >= volume]
        assert components(found == value) == expected


@given(LABELS)
def test_filling_holes_adds_enclosed_background_only(labels):
    found = cleaned(labels, fill_holes=True)
    changed = found != labels
    assert not labels[changed].any()
    np.testing.assert_array_equal(cleaned(found, fill_holes=True), found)


def test_a_hole_belongs_to_the_smallest_structure_around_it():
    labels = np.zeros((9, 9, 9), np.uint8)
    labels[1:8, 1:8, 1:8] = 1
    labels[2:7, 2:7, 2:7] = 0
    labels[3:6, 3:6, 3:6] = 2
    labels[4, 4, 4] = 0
    found = cleaned(labels, fill_holes=True)
    assert found[4, 4, 4] == 2
    assert found[2, 4, 4] == 1
    assert not found[0].any()


def test_a_hollow_that_is_open_at_the_border_of_the_image_stays():
    labels = np.ones((3, 4, 4), np.uint8)
    labels[0, 1, 1] = 0
    np.testing.assert_array_equal(cleaned(labels, fill_holes=True), labels)


@pytest.mark.parametrize("voxel_volume_mm3", [1.0, 0.7])
def test_without_a_rule_nothing_changes(voxel_volume_mm3):
    labels = np.eye(4, dtype=np.uint8)[None]
    np.testing.assert_array_equal(cleaned(labels, voxel_volume_mm3=voxel_volume_mm3), labels)
    assert not Cleaning()
    assert Cleaning(fill_holes=True)
