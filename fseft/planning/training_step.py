"""Resources of a training step: crops and patch that fit the memory and the time."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any, Literal

from fseft.errors import FseftError, pluralise
from fseft.experiment.devices import select_device
from fseft.planning.rules import show_sides, shrink_patch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fseft.model_zoo.catalogue import FoundationModel
    from fseft.planning.spacing import Grid
    from fseft.schemas import Fingerprint, ModelCard, Plan, PlanOptions, Triple

Device = Literal["cpu", "cuda"]

CROPS = 6
"""Crops per step, as in the FSEFT paper."""
MIN_CROPS = 2
"""Crops per step if time is short: more steps of few crops train better than few of many."""
ENOUGH_STEPS = 2000
"""Steps that a time budget must allow before a step has more than `MIN_CROPS` crops.

Nominal ones: one CPU core takes a quarter or a third of them.
"""
DEFAULT_STEPS = 500
"""Steps of `MIN_CROPS` crops in the default time budget on a CPU."""
DEFAULT_MINUTES = (2, 30)
"""Shortest and longest default time budget on a CPU."""
FEWEST_STEPS = 100
"""Steps below which a training learns next to nothing."""
FASTEST_PUBLIC_MODEL = "suprem_segresnet"
"""The public foundation model whose training step has the fewest operations."""
UNLABELLED_COST = 5 / 3
"""Factor of the duration of a step with half as many crops of scans without labels as well."""
MEMORY_FRACTION = 0.8
"""Fraction of the memory that a plan uses by default: free memory of a GPU, all of a computer."""
FLOPS_PER_SECOND = {"cpu": 8e10, "cuda": 1e13}
"""Nominal speed of four CPU cores and of a GPU, from which the duration of a step is estimated.

Independent of the machine, as default epochs and crops follow from it: a run resumes elsewhere.
"""


@dataclass(frozen=True)
class Resources:
    """The device, and the bytes that a training step may use."""

    device: Device
    limit: int
    requested: bool
    """Whether the limit was requested, instead of derived from the device."""


@dataclass(frozen=True)
class TrainingStep:
    """The patch and the number of crops that fit memory and time, and why.

    Attributes:
        patch: Patch size.
        crops: Crops per step.
        memory_bytes: Estimate of the memory that it needs.
        patch_reason: Why this patch.
        crops_reason: Why so many crops.
    """

    patch: Triple
    crops: int
    memory_bytes: int
    patch_reason: str
    crops_reason: str


@dataclass(frozen=True)
class Budget:
    """Training time, crops per step that it allows, and why.

    Attributes:
        minutes: Training time, in minutes of wall-clock time; None for no limit.
        crops: Crops per step.
        reason: Why this time and so many crops.
        steps: Steps by which the training ends, whatever time they take; None for all epochs.
    """

    minutes: float | None
    crops: int
    reason: str
    steps: int | None = None


def find_resources(options: PlanOptions) -> Resources:
    """Returns the device and the memory limit."""
    from fseft.learn.training.memory_estimate import free_gpu_bytes, installed_bytes

    selected: Device = "cuda" if select_device(options.device) == "cuda" else "cpu"
    if options.memory_bytes is not None:
        return Resources(selected, options.memory_bytes, requested=True)
    total = free_gpu_bytes() if selected == "cuda" else installed_bytes()
    return Resources(selected, int(MEMORY_FRACTION * total), requested=False)


def plan_budget(options: PlanOptions, crop_seconds: float, device: Device) -> Budget:
    """Returns the requested training time, or a default on a CPU, and the crops per step.

    Args:
        options: What the user has set.
        crop_seconds: Estimated duration of a training step per crop.
        device: Device of the training.
    """
    if options.minutes is not None:
        crops = options.crops_per_step or crops_in_time(options.minutes, crop_seconds)
        return Budget(options.minutes, crops, "requested")
    if device == "cuda":
        crops = options.crops_per_step or CROPS
        return Budget(None, crops, "no limit on a GPU: training ends by its epochs")
    crops = options.crops_per_step or MIN_CROPS
    shortest, longest = DEFAULT_MINUTES
    needed = ceil(DEFAULT_STEPS * crops * crop_seconds / 60)
    minutes = min(max(needed, shortest), longest)
    steps = round(60 * minutes / (crops * crop_seconds))
    limit = f", fewer than {DEFAULT_STEPS}, as a step is large" if needed > longest else ""
    length = f"about {pluralise(minutes, 'minute')} on four free CPU cores of nominal speed"
    reason = f"default on a CPU{limit}: {length}; minutes or epochs can be set"
    return Budget(minutes, crops, reason, steps)


def crops_in_time(minutes: float, crop_seconds: float) -> int:
    """Returns the number of crops per step at which a time budget allows enough steps.

    Args:
        minutes: The time budget.
        crop_seconds: Duration of a training step per crop.

    Examples:
        >>> crops_in_time(4, 0.1), crops_in_time(15, 0.1), crops_in_time(60, 0.1)
        (2, 4, 6)
    """
    crops_in_budget = 60 * minutes / crop_seconds
    return int(min(CROPS, max(MIN_CROPS, crops_in_budget / ENOUGH_STEPS)))


def for_minutes(plan: Plan, minutes: float | None) -> Plan:
    """Reduces the crops per step of a plan to what another time budget allows.

    Crops that the user has set stay.

    Args:
        plan: The plan.
        minutes: The other time budget; None to keep that of the plan.
    """
    if minutes is None or plan.options.crops_per_step is not None:
        return plan
    crops = min(plan.crops_per_step, crops_in_time(minutes, _crop_seconds(plan)))
    return plan.model_copy(update={"crops_per_step": crops, "minutes": minutes})


def with_crops(plan: Plan, options: PlanOptions, labels: int) -> Plan:
    """Returns a stored plan for steps with crops of scans without labels, if they are requested.

    Args:
        plan: The plan.
        options: What the user has set: crops per step, which do not change those of the plan, and
            whether there are scans without labels.
        labels: Number of structures.

    Raises:
        FseftError: The training step does not fit the memory limit of the plan.
    """
    from fseft.learn.training.memory_estimate import training_bytes

    chosen = plan.options.model_copy(update={"unlabelled": options.unlabelled})
    plan = plan.model_copy(update={"options": chosen})
    crops = crops_in_memory(options.crops_per_step or plan.crops_per_step, chosen)
    if crops <= plan.crops_per_step:
        return plan
    grid, limit = plan.preprocessing, find_resources(chosen).limit
    needed = training_bytes(
        plan.architecture,
        plan.hparams,
        in_channels=grid.network_channels,
        out_channels=1 + labels,
        patch_size=grid.patch_size,
        crops=crops,
    )
    if needed > limit:
        raise _too_large(plan.architecture, needed, grid.patch_size, crops, limit)
    return plan


def unlabelled_crops(crops: int) -> int:
    """Returns the crops of scans without labels in a step with that many labelled crops."""
    return max(1, crops // 2)


def crops_in_memory(crops: int, options: PlanOptions) -> int:
    """Returns all crops of a step with that many labelled ones."""
    return crops + unlabelled_crops(crops) if options.unlabelled else crops


def steps_in_time(plan: Plan, crops: int) -> int:
    """Estimates the training steps that the time budget of a plan, which has one, allows.

    Args:
        plan: A plan with a time budget.
        crops: Crops per step.
    """
    return round(60 * (plan.minutes or 0) / (crops * _crop_seconds(plan)))


def warn_of_few_steps(plan: Plan, minutes: float | None, crops: int) -> list[str]:
    """Returns a warning if a time budget allows too few training steps of the whole network.

    Args:
        plan: The plan.
        minutes: The time budget; None for no limit.
        crops: Crops per step.
    """
    step_seconds = crops * _crop_seconds(plan)
    if minutes is None or 60 * minutes >= FEWEST_STEPS * step_seconds:
        return []
    count = round(60 * minutes / step_seconds)
    steps = f"{minutes:g} minutes allow about {pluralise(count, 'training step')}"
    needed = ceil(DEFAULT_STEPS * step_seconds / 60)
    place, remedy = ("4 CPU cores", "a GPU") if plan.device == "cpu" else ("a GPU", "more time")
    if needed <= DEFAULT_MINUTES[1]:
        length = f"{needed} minutes at the nominal speed of {place}"
        return [f"{steps}, too few to learn from: {DEFAULT_STEPS} take about {length}"]
    warning = (
        f"training {plan.model} needs {remedy}: {steps}, {DEFAULT_STEPS} take about "
        f"{needed / 60:.0f} hours on {place}. On a CPU, adapt a smaller model "
        f"({FASTEST_PUBLIC_MODEL} is the fastest public one), or use a method that trains on "
        "the features of the frozen network, such as linear-probe"
    )
    return [warning]


def _crop_seconds(plan: Plan) -> float:
    grid = plan.preprocessing
    channels = grid.network_channels
    seconds = crop_seconds(plan.architecture, plan.hparams, channels, grid.patch_size, plan.device)
    return seconds * (UNLABELLED_COST if plan.options.unlabelled else 1)


def crop_seconds(
    architecture: str,
    hparams: Mapping[str, Any],
    in_channels: int,
    patch: Triple,
    device: Device,
) -> float:
    """Estimates the seconds of a training step per crop, from its floating-point operations.

    Args:
        architecture: Name of the architecture.
        hparams: Its hyper-parameters.
        in_channels: Channels of the image.
        patch: Voxels of a patch along (i, j, k).
        device: Device of the training.

    Returns:
        Seconds, at the nominal speed `FLOPS_PER_SECOND` of the device.
    """
    from fseft.learn.training.memory_estimate import training_flops

    flops = training_flops(architecture, hparams, in_channels=in_channels, patch_size=patch)
    return flops / FLOPS_PER_SECOND[device]


def choose_step(
    model: FoundationModel,
    fingerprint: Fingerprint,
    grid: Grid,
    resources: Resources,
    options: PlanOptions,
    channels: int,
) -> tuple[TrainingStep, Budget]:
    """Returns the first candidate whose training step fits the memory, and the time budget.

    Args:
        model: The foundation model.
        fingerprint: Provides the number of structures.
        grid: The spacing, and the first patch to try.
        resources: Device and memory limit.
        options: What the user has set.
        channels: Channels of the network's input.

    Raises:
        FseftError: Not even the smallest one fits.
    """
    from fseft.learn.training.memory_estimate import training_bytes

    card = model.card
    seconds = crop_seconds(
        card.architecture, card.hparams, channels, grid.patch_size, resources.device
    )
    seconds *= UNLABELLED_COST if options.unlabelled else 1
    budget = plan_budget(options, seconds, resources.device)
    fewest = _fewest_crops(card, resources, options)
    for patch, crops in _candidates(grid, model, budget.crops, fewest, options):
        needed = training_bytes(
            card.architecture,
            card.hparams,
            in_channels=channels,
            out_channels=1 + len(fingerprint.labels),
            patch_size=patch,
            crops=crops_in_memory(crops, options),
        )
        if needed <= resources.limit:
            step = TrainingStep(
                patch=patch,
                crops=crops,
                memory_bytes=needed,
                patch_reason=_patch_reason(patch, card, grid, resources, options),
                crops_reason=_crops_reason(crops, budget, options),
            )
            return step, budget
    raise _too_large(card.architecture, needed, patch, crops, resources.limit)


def _too_large(architecture: str, needed: int, patch: Triple, crops: int, limit: int) -> FseftError:
    """Returns the error of a training step, of which no smaller one may be taken."""
    return FseftError(
        f"the smallest training step of {architecture} needs {show_bytes(needed)} "
        f"({pluralise(crops, 'crop')} of {show_sides(patch)} voxels), the limit is "
        f"{show_bytes(limit)}",
        hint="Raise `memory`, or use a smaller model, patch or number of crops.",
    )


def _fewest_crops(card: ModelCard, resources: Resources, options: PlanOptions) -> int:
    """Returns the number of crops below which the patch shrinks instead."""
    if options.crops_per_step is not None:
        return options.crops_per_step
    # Two crops of a smaller patch train better than one of a larger patch.
    fixed_patch = card.contract.patch_size or options.patch_size
    return 1 if fixed_patch or resources.requested else MIN_CROPS


def _candidates(
    grid: Grid, model: FoundationModel, max_crops: int, min_crops: int, options: PlanOptions
) -> Iterator[tuple[Triple, int]]:
    """Yields patch sizes and crops per step, best first: fewer crops before a smaller patch.

    Values that the user sets stay.
    """
    from fseft.learn.networks.backbone import patch_limits

    limits = patch_limits(model.architecture(), model.card.hparams)
    size: Triple | None = grid.patch_size
    while size is not None:
        for crops in range(max_crops, min(max_crops, min_crops) - 1, -1):
            yield size, crops
        if options.patch_size is not None:
            return
        patch = size
        size = shrink_patch(size, grid.spacing_mm, limits.divisor, limits.minimum)
    if options.crops_per_step is None:
        yield patch, 1


def _patch_reason(
    patch: Triple, card: ModelCard, grid: Grid, resources: Resources, options: PlanOptions
) -> str:
    if options.patch_size is not None:
        return "set by hand"
    if patch != grid.patch_size:
        return f"{show_sides(grid.patch_size)} would not fit the memory"
    if card.contract.patch_size is not None:
        return "as the model was trained"
    side = 64 if resources.device == "cpu" else 128
    return (
        f"up to {side}³ voxels on this device, as long in mm along each axis as the volumes allow"
    )


def _crops_reason(crops: int, budget: Budget, options: PlanOptions) -> str:
    if options.crops_per_step is not None:
        return "set by hand"
    if crops < budget.crops:
        return f"{budget.crops} would not fit the memory"
    if crops == CROPS:
        return "as in the FSEFT paper"
    return "more steps of fewer crops train better where the time is short"


def show_bytes(count: int) -> str:
    """Formats bytes as `1.5 GB` or `300 MB`, in powers of 1000."""
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"
