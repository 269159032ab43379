"""Checks of a planner, as parameters of a test, and a dataset to plan."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fseft.planning.spacing import Grid, GridProblem
from fseft.registry import registry
from fseft.schemas import CaseFingerprint, ClassFingerprint, Contract, Fingerprint
from fseft.testing.lazy_imports import assert_listed_without_torch
from fseft.testing.parameters import parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from _pytest.mark import ParameterSet


def planner_checks(name: str, *, xfail: Mapping[str, str] | None = None) -> list[ParameterSet]:
    """Returns the checks of a planner as parameters of a test.

    ```python
    @pytest.mark.parametrize("check", planner_checks("my-planner"))
    def test_my_planner(check):
        check()
    ```

    Args:
        name: Name of the planner in the registry.
        xfail: Check -> reason why the planner cannot pass it; it must then fail.

    Raises:
        ValueError: `xfail` names an unknown check.
    """
    return parameters(name, CHECKS, name, xfail)


def a_grid_problem() -> GridProblem:
    """Returns the problem of two abdominal CT scans with a liver and an adrenal gland."""
    volumes_mm3 = {"liver": 1.5e6, "adrenal_gland": 4e3}
    case = CaseFingerprint(
        name="a",
        content="",
        shape=(400, 300, 160),
        shape_after_crop=(400, 300, 160),
        spacing_mm=(0.9, 0.9, 2.5),
        orientation="RAS",
        volumes_mm3=volumes_mm3,
        extents_mm={"liver": (200, 160, 180), "adrenal_gland": (22, 28, 30)},
    )
    classes = {
        name: ClassFingerprint(id=value, cases=2, median_volume_mm3=volume)
        for value, (name, volume) in enumerate(volumes_mm3.items(), start=1)
    }
    fingerprint = Fingerprint(
        dataset="abdomen",
        reader="nnunet",
        content="",
        channels=("CT",),
        modality="ct",
        integer=True,
        labels={name: entry.id for name, entry in classes.items()},
        cases=(case, case.model_copy(update={"name": "b"})),
        classes=classes,
        intensities=(),
    )
    return GridProblem(
        contract=Contract(),
        fingerprint=fingerprint,
        divisor=(16, 16, 16),
        minimum=(32, 32, 32),
        voxel_budget=64**3,
    )


def _planned(name: str, problem: GridProblem) -> Grid:
    grid: Grid = registry().factory("planner", name)(problem)
    return grid


def returns_a_grid_that_suits_the_network(name: str) -> None:
    """The spacing is positive; sides of the patch suit the network; there is a reason."""
    problem = a_grid_problem()
    grid = _planned(name, problem)
    assert min(grid.spacing_mm) > 0
    sides = zip(grid.patch_size, problem.divisor, problem.minimum, strict=True)
    assert all(side % divisor == 0 and side >= least for side, divisor, least in sides)
    assert grid.reason


def follows_the_user_and_the_contract(name: str) -> None:
    """A spacing and a patch that the user or the model prescribes stay."""
    problem = a_grid_problem()
    by_hand = replace(problem, spacing_mm=(2.0, 2.0, 4.0), patch_size=(64, 64, 32))
    trained = Contract(spacing_mm=(1.5, 1.5, 1.5), patch_size=(96, 96, 96))
    by_model = replace(problem, contract=trained)
    for prescribed, spacing_mm, patch in (
        (by_hand, by_hand.spacing_mm, by_hand.patch_size),
        (by_model, trained.spacing_mm, trained.patch_size),
    ):
        grid = _planned(name, prescribed)
        assert (grid.spacing_mm, grid.patch_size) == (spacing_mm, patch)


def plans_the_same_again(name: str) -> None:
    """The same problem leads to the same grid."""
    assert _planned(name, a_grid_problem()) == _planned(name, a_grid_problem())


def loads_no_torch_before_it_is_chosen(name: str) -> None:
    """Listing the plugin of the planner does not import torch."""
    assert_listed_without_torch("planner", name)


CHECKS: tuple[Callable[[str], None], ...] = (
    returns_a_grid_that_suits_the_network,
    follows_the_user_and_the_contract,
    plans_the_same_again,
    loads_no_torch_before_it_is_chosen,
)
