"""The decisions of a plan with their reasons, as `fseft plan` prints them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from fseft.errors import pluralise
from fseft.planning.rules import show_sides
from fseft.planning.training_step import MEMORY_FRACTION, show_bytes
from fseft.schemas import Decision
from fseft.volume.intensity import modality_name

if TYPE_CHECKING:
    from fseft.model_zoo.catalogue import FoundationModel
    from fseft.planning.spacing import Grid
    from fseft.planning.training_step import Budget, Resources, TrainingStep
    from fseft.schemas import Fingerprint, Preprocessing


def data_decisions(
    fingerprint: Fingerprint, preprocessing: Preprocessing, grid: Grid, intensity_reason: str
) -> tuple[Decision, ...]:
    """Returns the decisions on how scans are read.

    Args:
        fingerprint: Fingerprint of the dataset.
        preprocessing: Preprocessing of the plan.
        grid: The planned spacing, with its reason.
        intensity_reason: Why this normalisation.
    """
    schemes = dict.fromkeys(scheme.describe() for scheme in preprocessing.intensity)
    spacing = Decision(
        name="spacing",
        value=f"{show_sides(grid.spacing_mm)} mm",
        reason=grid.reason,
        rejected=grid.rejected,
    )
    return (
        _decision("modality", modality_name(preprocessing.modality), _modality_reason(fingerprint)),
        _decision("orientation", preprocessing.orientation, _orientation_reason(fingerprint)),
        spacing,
        _decision("intensity", "; ".join(schemes), intensity_reason),
    )


def stored_plan_decision(fingerprint: Fingerprint, training_cases: int) -> tuple[Decision, ...]:
    """Returns the decision to use a stored plan, if more labels are in it than in the training.

    Args:
        fingerprint: Fingerprint of the dataset, all of whose labels are in the plan.
        training_cases: Number of training cases.
    """
    labelled = sum(bool(case.volumes_mm3) for case in fingerprint.cases)
    if labelled <= training_cases:
        return ()
    reason = (
        f"`fseft plan` measured the labels of {pluralise(labelled, 'case')}, of which "
        f"{training_cases} train; without its file, the plan is made from these alone"
    )
    return (_decision("plan", "stored", reason),)


def compute_decisions(
    model: FoundationModel, step: TrainingStep, budget: Budget, resources: Resources
) -> tuple[Decision, ...]:
    """Returns the decisions on the training step.

    Args:
        model: The foundation model.
        step: The planned training step.
        budget: The time budget.
        resources: Device and memory limit.
    """
    architecture = _architecture_reason(model)
    return (
        _decision("patch size", f"{show_sides(step.patch)} voxels", step.patch_reason),
        _decision("training length", _training_length(budget), budget.reason),
        _decision("crops per step", str(step.crops), step.crops_reason),
        _decision("memory", show_bytes(step.memory_bytes), _memory_reason(resources)),
        _decision("architecture", model.card.architecture, architecture),
        _decision("device", resources.device, _device_reason(resources)),
    )


def _training_length(budget: Budget) -> str:
    if budget.steps is not None:
        return pluralise(budget.steps, "step")
    return "all epochs" if budget.minutes is None else f"{budget.minutes:g} minutes"


def _decision(name: str, value: str, reason: str) -> Decision:
    return Decision(name=name, value=value, reason=reason)


def _modality_reason(fingerprint: Fingerprint) -> str:
    kind = "whole numbers" if fingerprint.integer else "fractions"
    channels = ", ".join(fingerprint.channels)
    if fingerprint.modality == "other":
        return f"neither the channel name ({channels}) nor the values ({kind}) show it"
    return f"from the channel {channels} and the values ({kind})"


def _orientation_reason(fingerprint: Fingerprint) -> str:
    stored = Counter(
        case.orientation[::-1] for case in fingerprint.cases
    )  # in the order that viewers show: x, y, z
    files = ", ".join(f"{count} {code}" for code, count in stored.most_common())
    return f"axes of the model, along which sizes are given; axes x, y, z of the files: {files}"


def _memory_reason(resources: Resources) -> str:
    source = "requested" if resources.requested else f"{MEMORY_FRACTION:.0%} of the device's memory"
    return (
        f"estimate of a full training step; the limit is {show_bytes(resources.limit)} ({source})"
    )


def _architecture_reason(model: FoundationModel) -> str:
    from fseft.learn.networks.backbone import patch_limits

    divisor = patch_limits(model.architecture(), model.card.hparams).divisor
    origin = "the model's" if model.pretrained else "the network to train from random weights"
    return f"{origin}; patch sides divisible by {show_sides(divisor)}"


def _device_reason(resources: Resources) -> str:
    return (
        "no CUDA device, or CPU requested"
        if resources.device == "cpu"
        else "a CUDA device is available"
    )
