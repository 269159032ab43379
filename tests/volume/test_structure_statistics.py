"""Statistics of structures."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from fseft.testing import a_segmentation
from fseft.volume.image import Volume
from fseft.volume.structure_statistics import measure_structures, statistics_csv


@pytest.fixture
def measured():
    segmentation = a_segmentation()
    rng = np.random.default_rng(0)
    image = rng.normal(50, 10, (2, *segmentation.labels.shape))
    return (
        segmentation,
        image,
        measure_structures(segmentation, Volume(image, segmentation.geometry)),
    )


def test_volume_intensity_and_position_are_those_of_the_voxels(measured):
    segmentation, image, statistics = measured
    liver, mask = statistics.structures["liver"], segmentation.mask("liver")
    assert liver.volume_ml == pytest.approx(24 * 0.8 * 0.9 * 2.5 / 1000)
    for channel in range(2):
        assert liver.mean[channel] == pytest.approx(image[channel][mask].mean())
        assert liver.sd[channel] == pytest.approx(image[channel][mask].std())
    positions = segmentation.geometry.affine @ np.vstack([np.argwhere(mask).T, np.ones(24)])
    left, posterior, superior = positions[:3].mean(1)
    assert liver.centroid_ras_mm == pytest.approx((-left, -posterior, superior))
    assert (liver.box_start, liver.box_stop) == ((2, 2, 1), (6, 5, 3))
    assert not liver.at_border
    assert statistics.structures["kidney_left"].at_border is False


def test_a_structure_without_voxels_has_a_volume_of_zero_only(measured):
    _, _, statistics = measured
    missing = statistics.structures["not there"]
    assert (missing.volume_ml, missing.mean, missing.centroid_ras_mm) == (0.0, (), None)


def test_the_table_has_a_row_per_structure(measured):
    _, _, statistics = measured
    rows = list(csv.DictReader(io.StringIO(statistics_csv([statistics]))))
    assert [row["structure"] for row in rows] == list(statistics.structures)
    assert float(rows[0]["sd_1"]) == pytest.approx(statistics.structures["liver"].sd[1], rel=1e-5)
    assert rows[-1]["mean"] == rows[-1]["box_start_x"] == ""
