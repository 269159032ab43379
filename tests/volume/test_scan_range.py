"""A scan is compared with the voxel sizes and fields of view of the training scans."""

from __future__ import annotations

import numpy as np
import pytest

from fseft.schemas import CaseFingerprint
from fseft.volume.geometry import Geometry
from fseft.volume.scan_range import differences, scan_range


def case(shape, spacing_mm):
    return CaseFingerprint(
        name="a",
        content="",
        shape=shape,
        shape_after_crop=shape,
        spacing_mm=spacing_mm,
        orientation="RAS",
    )


TRAINING = scan_range([case((40, 50, 30), (1, 1, 1)), case((60, 60, 20), (1, 1, 2))], ["a"])


def test_the_range_holds_all_sides_of_all_cases():
    assert TRAINING.spacing_mm == (1, 2)
    assert TRAINING.extent_mm == (30, 60)
    assert scan_range([case((40, 50, 30), (1, 1, 1))], []) is None


@pytest.mark.parametrize(
    ("shape", "spacing_mm", "words"),
    [
        ((40, 50, 30), (1, 1, 1), []),
        ((60, 60, 12), (0.7, 0.7, 3.5), []),
        ((60, 60, 10), (1, 1, 5), ["voxel size"]),
        ((100, 100, 100), (0.4, 0.4, 0.4), ["voxel size"]),
        ((250, 250, 150), (1, 1, 1), ["field of view"]),
        ((14, 40, 40), (1, 1, 1), ["field of view"]),
    ],
)
def test_a_scan_beyond_twice_the_range_differs(shape, spacing_mm, words):
    geometry = Geometry(shape, np.diag([*spacing_mm, 1.0]))
    found = differences(geometry, TRAINING)
    assert len(found) == len(words)
    assert all(word in text for word, text in zip(words, found, strict=True))


def test_nothing_is_said_of_an_adapter_without_a_range():
    assert differences(Geometry((5, 5, 5), np.diag([9.0, 9.0, 9.0, 1.0])), None) == []
