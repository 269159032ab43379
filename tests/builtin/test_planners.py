"""The built-in planners satisfy their contract; a plan names its planner."""

from __future__ import annotations

import pytest

from fseft.planning.spacing import choose_grid, native_grid
from fseft.registry import registry
from fseft.testing import a_grid_problem, planner_checks


@pytest.mark.parametrize(
    "check", [check for name in registry().names("planner") for check in planner_checks(name)]
)
def test_the_contract(check):
    check()


def test_the_planner_native_keeps_the_spacing_of_the_files():
    problem = a_grid_problem()
    assert max(native_grid(problem).spacing_mm) < 1.5 < max(choose_grid(problem).spacing_mm)
