"""The knapsack respects its budget, and an outlier hardly changes a smoothed gain."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from fseft_sea.allocation import fill, smoothed

UNITS = st.lists(st.tuples(st.floats(-1, 1), st.integers(1, 1000)), max_size=30)


def density(unit):
    gain, size = unit
    return gain / size


def columns(units):
    """Return the gains and the sizes of units."""
    return [gain for gain, _ in units], [size for _, size in units]


@given(UNITS, st.integers(0, 3000))
def test_the_budget_is_respected_and_units_without_gain_are_not_selected(units, budget):
    gains, sizes = columns(units)
    kept = fill(gains, sizes, budget)
    assert sum(sizes[index] for index in kept) <= budget
    assert len(set(kept)) == len(kept)
    assert all(gains[index] > 0 for index in kept)


@given(UNITS, st.integers(0, 3000))
def test_units_are_selected_by_gain_per_size_until_none_fits(units, budget):
    kept = fill(*columns(units), budget)
    densities = [density(units[index]) for index in kept]
    assert densities == sorted(densities, reverse=True)
    for index, unit in enumerate(units):
        if index not in kept and unit[0] > 0:
            denser = [units[k] for k in kept if density(units[k]) >= density(unit)]
            assert sum(size for _, size in denser) + unit[1] > budget


def test_a_budget_for_all_keeps_all_that_gain():
    assert fill([0.1, 0.0, 0.3, -0.2], [10, 10, 10, 10], 40) == [2, 0]


def test_without_audits_nothing_has_gained():
    assert smoothed(torch.zeros(0, 3), 0.5).tolist() == [0, 0, 0]


@given(
    st.lists(st.lists(st.floats(-1, 1), min_size=2, max_size=2), min_size=1, max_size=8),
    st.floats(0.01, 1),
)
def test_smoothed_gains_stay_within_the_measured_ones(audits, weight):
    table = torch.tensor(audits)
    mean = smoothed(table, weight)
    assert (mean >= table.amin(0) - 1e-6).all()
    assert (mean <= table.amax(0) + 1e-6).all()


def test_the_weight_is_that_of_the_newest_audit():
    audits = torch.tensor([[0.0], [1.0]])  # of two, the quartiles are at 0.25 and 0.75
    torch.testing.assert_close(smoothed(audits, 0.2), torch.tensor([0.25 + 0.2 * 0.5]))
    assert smoothed(audits, 1.0).tolist() == [0.75]


def test_an_outlier_hardly_changes_the_mean():
    calm = torch.full((5, 1), 0.1)
    odd = calm.clone()
    odd[2] = 50.0
    torch.testing.assert_close(smoothed(odd, 0.5), smoothed(calm, 0.5))
