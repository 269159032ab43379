"""Intensity statistics are exact for whole numbers, and every case has the same weight."""

from __future__ import annotations

import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fseft.errors import FseftError
from fseft.volume.histogram import measure_intensities, summarise

dtypes = st.sampled_from([np.int16, np.uint8, np.int32, np.uint16, np.float32])


@st.composite
def whole_values(draw, min_size=1):
    """Whole numbers of one dtype; in float32 up to 2^16."""
    dtype = draw(dtypes)
    low, high = (
        (-65536, 65536) if dtype is np.float32 else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    )
    near = draw(st.integers(low, max(low, high - 300)))
    numbers = st.integers(near, near + 255)
    return np.array(draw(st.lists(numbers, min_size=min_size, max_size=60)), dtype)


@settings(deadline=None)
@given(values=whole_values())
def test_one_case_of_whole_numbers_equals_numpy(values):
    stats = summarise([measure_intensities(values)])
    exact = values.astype(np.float64)
    assert stats.mean == pytest.approx(exact.mean(), rel=1e-12, abs=1e-9)
    assert stats.std == pytest.approx(exact.std(), rel=1e-9, abs=1e-6)
    assert (stats.minimum, stats.maximum) == (exact.min(), exact.max())
    expected = np.percentile(exact, [0.5, 50, 99.5], method="inverted_cdf")
    assert [stats.percentile_00_5, stats.median, stats.percentile_99_5] == expected.tolist()


@settings(deadline=None)
@given(cases=st.lists(whole_values(min_size=0), min_size=1, max_size=5))
def test_cases_weigh_the_same_whatever_their_size(cases):
    stats = summarise([measure_intensities(case) for case in cases])
    filled = [case.astype(np.float64) for case in cases if case.size]
    if not filled:
        assert stats is None
        return
    pooled = np.concatenate(filled)
    weights = np.concatenate([np.full(case.size, 1 / (case.size * len(filled))) for case in filled])
    mean = np.average(pooled, weights=weights)
    assert stats.mean == pytest.approx(mean, rel=1e-9, abs=1e-6)
    assert stats.std == pytest.approx(
        np.sqrt(np.average((pooled - mean) ** 2, weights=weights)), abs=1e-4
    )
    assert (stats.minimum, stats.maximum) == (pooled.min(), pooled.max())
    for level, value in [
        (0.005, stats.percentile_00_5),
        (0.5, stats.median),
        (0.995, stats.percentile_99_5),
    ]:
        assert weights[pooled <= value].sum() >= level - 1e-9
        assert weights[pooled < value].sum() < level + 1e-9


@settings(deadline=None)
@given(
    values=arrays(
        np.float32,
        st.integers(1, 50),
        elements=st.floats(-(2.0**60), 2.0**60, width=32, allow_subnormal=False),
    )
)
def test_small_cases_of_any_floats_equal_numpy(values):
    stats = summarise([measure_intensities(values)])
    exact = values.astype(np.float64)
    scale = np.abs(exact).max()
    assert stats.mean == pytest.approx(exact.mean(), rel=1e-9, abs=1e-12 * scale)
    assert stats.std == pytest.approx(exact.std(), rel=1e-6, abs=1e-9 * scale)
    assert stats.median == np.percentile(exact, 50, method="inverted_cdf")


def test_large_float_cases_keep_a_bounded_sample_and_exact_moments():
    values = np.random.default_rng(0).normal(50, 10, 400_000).astype(np.float32)
    case = measure_intensities(values, seed=3)
    stats = summarise([case])
    assert case.values.size <= 100_000
    assert stats.mean == pytest.approx(values.mean(dtype=np.float64), rel=1e-12)
    assert stats.std == pytest.approx(values.std(dtype=np.float64), rel=1e-12)
    assert (stats.minimum, stats.maximum) == (values.min(), values.max())
    assert stats.percentile_99_5 == pytest.approx(np.percentile(values, 99.5), abs=0.4)
    assert np.array_equal(case.values, measure_intensities(values, seed=3).values)
    assert not np.array_equal(case.values, measure_intensities(values, seed=4).values)


def test_whole_numbers_in_a_float_image_are_counted_not_sampled():
    values = np.random.default_rng(0).integers(0, 4000, 300_000)
    counted, floats = (
        measure_intensities(values.astype(np.int16)),
        measure_intensities(values.astype(np.float32)),
    )
    assert np.array_equal(counted.values, floats.values)
    assert np.array_equal(counted.counts, floats.counts)
    assert counted.counts.sum() == values.size


def test_integers_of_a_huge_range_are_sampled():
    values = np.array([-(2**62), 5, 2**62])
    assert summarise([measure_intensities(values)]).median == 5


def test_nothing_measured_gives_nothing():
    assert summarise([]) is None
    assert summarise([measure_intensities(np.empty(0, np.int16))]) is None


def test_an_empty_case_contributes_nothing():
    full, empty = (
        measure_intensities(np.array([1, 2, 3], np.int16)),
        measure_intensities(np.empty(0, np.float32)),
    )
    assert summarise([full, empty]) == summarise([full])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad):
    with pytest.raises(FseftError, match="NaN or infinity"):
        measure_intensities(np.array([1, bad, 2], np.float32))


def test_a_case_crosses_process_borders():
    case = measure_intensities(np.array([1, 5, 5], np.int16))
    assert summarise([pickle.loads(pickle.dumps(case))]) == summarise([case])  # noqa: S301


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_a_whole_volume_needs_little_memory(dtype):
    values = np.random.default_rng(0).normal(0, 300, 94 * 208 * 208).astype(dtype)
    tracemalloc.start()
    measure_intensities(values)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6
