"""Spacing and patch of a plan: calls the planner, and checks what it returns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.errors import FseftError, PluginError
from fseft.planning.rules import show_sides
from fseft.registry import registry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fseft.learn.networks.roles import PatchLimits
    from fseft.model_zoo.catalogue import FoundationModel
    from fseft.planning.spacing import Grid, GridProblem
    from fseft.planning.training_step import Device
    from fseft.schemas import Dataset, Fingerprint, PlanOptions, Triple

VOXEL_BUDGETS: Mapping[Device, int] = {"cpu": 64**3, "cuda": 128**3}
"""Voxels of a patch: a CPU processes them in seconds."""
SHORT_MINUTES = 5
"""Longest time budget of a short training on a CPU: about 500 steps of one core."""


def plan_grid(
    model: FoundationModel,
    fingerprint: Fingerprint,
    device: Device,
    options: PlanOptions,
    dataset: Dataset | None,
) -> Grid:
    """Lets the planner choose spacing and patch of a training step.

    Args:
        model: The foundation model.
        fingerprint: Fingerprint of the dataset, with the structures of the training labels.
        device: Device of the training.
        options: What the user sets, and the name of the planner.
        dataset: The dataset, to measure what a spacing costs the labels; None not to.

    Raises:
        FseftError: The network does not accept the patch.
        PluginError: The planner does not return a grid, or not with what is prescribed.
    """
    from fseft.learn.networks.backbone import patch_limits
    from fseft.planning.label_round_trip import LabelSample
    from fseft.planning.spacing import GridProblem

    contract, limits = model.card.contract, patch_limits(model.architecture(), model.card.hparams)
    _check_patch(options.patch_size or limits.minimum, limits)
    sample = dataset and LabelSample.of(dataset, fingerprint, contract.orientation)
    problem = GridProblem(
        contract=contract,
        fingerprint=fingerprint,
        divisor=limits.divisor,
        minimum=limits.minimum,
        voxel_budget=VOXEL_BUDGETS[device],
        round_trip=sample.round_trip if sample else None,
        spacing_mm=options.spacing_mm,
        patch_size=options.patch_size,
        foreground_mm=sample.foreground_mm if sample and is_short(options, device) else None,
    )
    planned = registry().factory("planner", options.planner)(problem)
    grid = _checked_grid(planned, problem, options.planner)
    if grid.patch_size != contract.patch_size:
        _check_patch(grid.patch_size, limits)
    return grid


def is_short(options: PlanOptions, device: Device) -> bool:
    """Returns whether a training has so few steps that its crops should show most structures."""
    return device == "cpu" and options.minutes is not None and options.minutes <= SHORT_MINUTES


def _checked_grid(grid: object, problem: GridProblem, planner: str) -> Grid:
    """Returns what a planner, perhaps of a plugin, returned if it is a grid as prescribed."""
    from fseft.planning.spacing import Grid

    spacing_mm = problem.spacing_mm or problem.contract.spacing_mm
    patch_size = problem.patch_size or problem.contract.patch_size
    if not isinstance(grid, Grid):
        fault = f"returned a {type(grid).__name__}, not a Grid"
    elif spacing_mm not in (None, grid.spacing_mm):
        fault = f"did not keep the prescribed spacing of {show_sides(spacing_mm)} mm"
    elif patch_size not in (None, grid.patch_size):
        fault = f"did not keep the prescribed patch of {show_sides(patch_size)} voxels"
    else:
        return grid
    remedy = registry().resolve("planner", planner).source.remedy
    raise PluginError(f"the planner {planner!r} {fault}", hint=remedy)


def _check_patch(patch: Triple, limits: PatchLimits) -> None:
    """Refuses a patch that the network does not accept."""
    if limits.nearest(patch) != patch:
        raise FseftError(
            f"a patch of {show_sides(patch)} voxels does not suit the network",
            hint=f"Set multiples of {show_sides(limits.divisor)}, "
            f"from {show_sides(limits.minimum)} on.",
        )
