"""Intensities: the scheme follows the contract, then nnU-Net's rule; whole volumes and patches
agree.
"""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from fseft.errors import FseftError
from fseft.schemas import Contract, Intensity, IntensityStats
from fseft.volume.intensity import (
    guess_modality,
    modality_warnings,
    normalise,
    pool_intensity_statistics,
    select_intensity_scheme,
)

STATS = IntensityStats(
    mean=50, std=20, median=48, minimum=-900, maximum=1500, percentile_00_5=-80, percentile_99_5=190
)
WINDOW = Intensity(scheme="window", low=-175, high=250)
ZSCORE = Intensity(scheme="zscore")


@pytest.mark.parametrize(
    ("channels", "minimum", "modality"),
    [
        (["CT"], 0, "ct"),
        (["ct_portal"], 0, "ct"),
        (["T1"], -3, "mr"),
        (["MRI"], 0, "mr"),
        (["FLAIR", "T1w", "t1gd", "T2w"], 0, "mr"),
        (["image"], -1024, "ct"),
        (["image"], -2.5, "other"),
        (["mr"], -2000, "mr"),
        (["CT", "PET"], -1000, "other"),
        (["electron"], 0, "other"),
    ],
)
def test_the_channel_names_define_the_modality_else_the_values(channels, minimum, modality):
    assert guess_modality(channels, minimum) == modality


def test_the_contract_goes_first():
    contract = Contract(intensity={"ct": WINDOW})
    schemes, reason = select_intensity_scheme(contract, "ct", [STATS, STATS])
    assert schemes == (WINDOW, WINDOW)
    assert "trained" in reason


def test_an_open_contract_leaves_ct_to_the_foreground():
    (scheme,), reason = select_intensity_scheme(Contract(), "ct", [STATS])
    assert scheme == Intensity(scheme="clip-zscore", low=-80, high=190, mean=50, std=20)
    assert "nnU-Net" in reason


@pytest.mark.parametrize(("modality", "name"), [("mr", "MR"), ("other", "this modality")])
def test_a_modality_without_an_intensity_scale_in_the_contract_is_z_scored(modality, name):
    schemes, reason = select_intensity_scheme(Contract(intensity={"ct": WINDOW}), modality, [STATS])
    assert schemes == (ZSCORE,)
    assert f"no intensity scale for {name}" in reason


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        (WINDOW, [0, 0, 175 / 425, 1]),
        (
            Intensity(scheme="clip-zscore", low=-80, high=190, mean=50, std=20),
            [-6.5, -6.5, -2.5, 7],
        ),
        (ZSCORE, [-20.6, -4.1, -0.6, 9.4]),
        (Intensity(scheme="minmax"), [-1, 0.1, 1 / 3, 1]),
        (Intensity(scheme="percentiles", percentiles=(0, 100)), [0, 0.55, 2 / 3, 1]),
    ],
)
def test_each_scheme_does_its_arithmetic(scheme, expected):
    array = np.array([-1000, -175, 0, 500], np.int16).reshape(1, 4, 1, 1)
    stats = {"means": [30], "stds": [50], "minima": [-1000], "maxima": [500]}
    result = normalise(array, [scheme], stats)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result.ravel(), expected, rtol=1e-6)


def test_a_patch_is_normalised_as_the_whole():
    array = np.random.default_rng(0).normal(100, 30, (2, 8, 9, 7)).astype(np.int16)
    stats = {"means": [100, 90], "stds": [30, 0]}
    schemes = (WINDOW, ZSCORE)
    part = (slice(None), slice(2, 5), slice(1, 9), slice(3, 4))
    whole = normalise(array, schemes, stats)
    np.testing.assert_array_equal(normalise(array[part], schemes, stats), whole[part])
    assert np.isfinite(whole).all()


def test_the_stored_array_stays_as_it_is():
    array = np.ones((1, 2, 2, 2), np.float32)
    normalise(array, [WINDOW], {})
    assert (array == 1).all()


def test_as_many_schemes_as_channels_are_required():
    with pytest.raises(FseftError, match="1 channels, the plan 2"):
        normalise(np.zeros((1, 2, 2, 2)), (WINDOW, WINDOW), {})


@pytest.mark.parametrize(
    ("values", "cause"),
    [
        ({"scheme": "window", "low": 0}, "has no 'high'"),
        ({"scheme": "clip-zscore", "low": 0, "high": 1, "mean": 0}, "has no 'std'"),
        ({"scheme": "window", "low": 1, "high": 0}, "low 1 is above high 0"),
        ({"scheme": "window", "low": 0, "high": float("inf")}, "finite"),
    ],
)
def test_a_scheme_without_its_values_cannot_be_made(values, cause):
    with pytest.raises(ValidationError, match=cause):
        Intensity(**values)


def test_one_scheme_for_several_datasets_clips_what_is_outside_all_and_weighs_them_alike():
    values = {"mean": -700, "std": 100, "percentile_00_5": -980, "percentile_99_5": 20}
    lungs = STATS.model_copy(update=values)
    found = pool_intensity_statistics([STATS, lungs])
    assert (found.scheme, found.low, found.high, found.mean) == ("clip-zscore", -980, 190, -325)
    assert found.std == pytest.approx(np.sqrt((20**2 + 100**2) / 2 + 375**2))
    assert (
        pool_intensity_statistics([STATS])
        == select_intensity_scheme(Contract(), "ct", [STATS])[0][0]
    )


def test_a_label_map_is_recognised_by_its_few_values_also_in_small_scans():
    noise = np.random.default_rng(0).normal(0, 200, (1, 9, 7, 5)).astype(np.int16)
    assert modality_warnings(noise, "other") == []
    (warning,) = modality_warnings((noise > 0).astype(np.uint8), "other")
    assert warning == "it contains 2 different values, as a label map does"
