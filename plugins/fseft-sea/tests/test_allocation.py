"""The knapsack is never over its budget, and what is smoothed is not moved by one odd audit."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from fseft_sea.allocation import fill, smoothed

UNITS = st.lists(st.tuples(st.floats(-1, 1), st.integers(1, 1000)), max_size=30)


def density(unit):
    gain, size = unit
    return gain / size


@given(UNITS, st.integers(0, 3000))
def test_the_budget_is_never_exceeded_and_nothing_is_kept_twice_or_for_no_gain(units, budget):
    gains, sizes = [gain for gain, _ in units], [size for _, size in units]
    kept = fill(gains, sizes, budget)
    assert sum(sizes[index] for index in kept) <= budget
    assert len(set(kept)) == len(kept)
    assert all(gains[index] > 0 for index in kept)


@given(UNITS, st.integers(0, 3000))
def test_the_most_gain_for_its_size_comes_first_and_what_was_left_out_did_not_fit(units, budget):
    kept = fill([gain for gain, _ in units], [size for _, size in units], budget)
    densities = [density(units[index]) for index in kept]
    assert densities == sorted(densities, reverse=True)
    for index, unit in enumerate(units):
        if index not in kept and unit[0] > 0:
            before = sum(units[other][1] for other in kept if density(units[other]) >= density(unit))
            assert before + unit[1] > budget


def test_a_budget_for_all_keeps_all_that_gain():
    assert fill([0.1, 0.0, 0.3, -0.2], [10, 10, 10, 10], 40) == [2, 0]


def test_without_audits_nothing_has_gained():
    assert smoothed(torch.zeros(0, 3), 0.5).tolist() == [0, 0, 0]


@given(st.lists(st.lists(st.floats(-1, 1), min_size=2, max_size=2), min_size=1, max_size=8), st.floats(0.01, 1))
def test_what_is_smoothed_is_within_what_was_measured(audits, weight):
    table = torch.tensor(audits)
    mean = smoothed(table, weight)
    assert (mean >= table.amin(0) - 1e-6).all()
    assert (mean <= table.amax(0) + 1e-6).all()


def test_the_newest_audit_weighs_as_asked():
    audits = torch.tensor([[0.0], [1.0]])  # of two, the quartiles are at 0.25 and 0.75
    torch.testing.assert_close(smoothed(audits, 0.2), torch.tensor([0.25 + 0.2 * 0.5]))
    assert smoothed(audits, 1.0).tolist() == [0.75]


def test_one_odd_audit_hardly_moves_the_mean():
    calm = torch.full((5, 1), 0.1)
    odd = calm.clone()
    odd[2] = 50.0
    torch.testing.assert_close(smoothed(odd, 0.5), smoothed(calm, 0.5))
