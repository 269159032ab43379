"""Plans how a dataset is processed for a model, from contract, fingerprints and resources."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fseft.errors import FseftError
from fseft.experiment.callbacks import Callbacks
from fseft.experiment.devices import select_device
from fseft.planning.fingerprinting import fingerprint_dataset
from fseft.schemas import Contract, Decision, Fingerprint, Plan, Preprocessing
from fseft.workspace import digest, read_document, write_document

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from fseft.learn.networks.roles import Architecture
    from fseft.model_zoo.catalogue import FoundationModel
    from fseft.parallel import Workers
    from fseft.schemas import Dataset, Millimetres, ModelCard, Triple
    from fseft.workspace import Workspace

Device = Literal["cpu", "cuda"]

CROPS = 6
"""Crops per step, as in the FSEFT paper."""
CPU_BUDGET = 64**3
"""Voxels of a patch that a CPU processes in seconds."""
CUDA_BUDGET = 128**3
"""Voxels of a patch for a GPU."""
MEMORY_FRACTION = 0.8
"""Fraction of the memory that a plan uses by default: free memory of a GPU, all of a computer."""


@dataclass(frozen=True)
class _Resources:
    """The device, and the bytes that a training step may use."""

    device: Device
    limit: int
    requested: bool
    """Whether the limit was requested, instead of derived from the device."""


@dataclass(frozen=True)
class _TrainingStep:
    """The patch and the number of crops that fit the memory, and why."""

    patch: Triple
    crops: int
    memory_bytes: int
    reason: str


def make_plan(
    dataset: Dataset,
    model: FoundationModel,
    workspace: Workspace,
    *,
    memory_bytes: int | None = None,
    device: str = "auto",
    workers: Workers = 1,
    callbacks: Callbacks | None = None,
    reuse: bool = False,
) -> tuple[Fingerprint, Plan]:
    """Fingerprints a dataset and plans it for a model; both documents are written to the workspace.

    Args:
        dataset: The dataset.
        model: The foundation model; the one called "none" stands for random weights.
        workspace: Where fingerprint and plan are stored.
        memory_bytes: Memory that a training step may use; None for most of the device's memory.
        device: "auto", "cpu" or "cuda".
        workers: Processes, or the address of a dask scheduler.
        callbacks: Observe the fingerprinting.
        reuse: Return the stored plan if it was made for this model and these files, its device
            exists, and neither memory nor device is requested.

    Returns:
        The fingerprint and the plan.

    Raises:
        FseftError: A case is broken, the model has other input channels, the device does not exist,
            or the smallest training step exceeds the memory.
    """
    _check_channels(model, dataset)
    callbacks = callbacks or Callbacks()
    with callbacks.progress("measure", len(dataset.cases)) as advance:
        fingerprint = fingerprint_dataset(dataset, workspace, workers=workers, progress=advance)
    path = workspace.plan(dataset.name, model.name)
    if reuse and memory_bytes is None and device == "auto" and path.is_file():
        stored = read_document(path, Plan)
        unchanged = (stored.fingerprint, stored.card) == (fingerprint.content, _key(model.card))
        if unchanged and _is_available(stored.device):
            return fingerprint, stored
    plan = plan_for(model, fingerprint, memory_bytes=memory_bytes, device=device)
    write_document(path, plan)
    return fingerprint, plan


def plan_for(
    model: FoundationModel,
    fingerprint: Fingerprint,
    *,
    memory_bytes: int | None = None,
    device: str = "auto",
) -> Plan:
    """Plans a fingerprinted dataset without writing the plan; arguments as for `make_plan`."""
    return _plan(model, fingerprint, _resources(device, memory_bytes))


def _key(card: ModelCard) -> str:
    """Digests what a plan depends on of a model."""
    return digest(
        card.model_dump(mode="json", include={"name", "architecture", "hparams", "contract"})
    )


def _is_available(device: Device) -> bool:
    return device == "cpu" or select_device("auto") == device


def restrict_intensity(
    plan: Plan, contract: Contract, dataset: Dataset, support: Collection[str]
) -> Plan:
    """Replaces the intensity statistics of a plan by those of the training cases.

    A label that is used for any decision counts in k, and statistics of the foreground are such a
    decision. An intensity scheme that the model's contract prescribes stays.

    Args:
        plan: The plan of the dataset.
        contract: The preprocessing contract of the model.
        dataset: The dataset.
        support: Names of the training cases.
    """
    from fseft.volume.fingerprint import foreground_statistics
    from fseft.volume.intensity import select_intensity_scheme

    modality = plan.preprocessing.modality
    uses_statistics = any(
        channel.scheme == "clip-zscore" for channel in plan.preprocessing.intensity
    )
    if modality in contract.intensity or not uses_statistics:
        return plan
    statistics = foreground_statistics(dataset, support)
    intensity, _ = select_intensity_scheme(contract, modality, statistics)
    preprocessing = plan.preprocessing.model_copy(update={"intensity": intensity})
    return plan.model_copy(update={"preprocessing": preprocessing})


def _check_channels(model: FoundationModel, dataset: Dataset) -> None:
    expected = model.card.contract.channels
    if model.pretrained and expected != len(dataset.channels):
        raise FseftError(
            f"the model {model.name} takes {expected} channel(s), {dataset.name} has "
            f"{len(dataset.channels)} ({', '.join(dataset.channels)})",
            hint="Use another model, or a dataset with these channels only.",
        )


def _resources(device: str, memory_bytes: int | None) -> _Resources:
    import torch

    from fseft.learn.training.memory_estimate import installed_bytes

    selected: Device = "cuda" if select_device(device) == "cuda" else "cpu"
    if memory_bytes is not None:
        return _Resources(selected, memory_bytes, requested=True)
    total = torch.cuda.mem_get_info()[0] if selected == "cuda" else installed_bytes()
    return _Resources(selected, int(MEMORY_FRACTION * total), requested=False)


def _plan(model: FoundationModel, fingerprint: Fingerprint, resources: _Resources) -> Plan:
    from fseft.planning.rules import check_contract
    from fseft.volume.intensity import select_intensity_scheme

    card, contract = model.card, model.card.contract
    spacing, spacing_reason = _spacing(card, fingerprint)
    intensity, intensity_reason = select_intensity_scheme(
        contract, fingerprint.modality, fingerprint.intensities
    )
    step = _training_step(card, fingerprint, spacing, model.architecture(), resources)
    preprocessing = Preprocessing(
        orientation=contract.orientation,
        spacing_mm=spacing,
        modality=fingerprint.modality,
        intensity=intensity,
        patch_size=step.patch,
        **contract.conventions,
    )
    reasons = {"spacing": spacing_reason, "intensity": intensity_reason}
    return Plan(
        dataset=fingerprint.dataset,
        model=card.name,
        card=_key(card),
        fingerprint=fingerprint.content,
        architecture=card.architecture,
        hparams=card.hparams,
        preprocessing=preprocessing,
        crops_per_step=step.crops,
        memory_bytes=step.memory_bytes,
        device=resources.device,
        decisions=_decisions(model, fingerprint, preprocessing, step, resources, reasons),
        warnings=(*fingerprint.warnings, *check_contract(contract, fingerprint, preprocessing)),
    )


def _decisions(
    model: FoundationModel,
    fingerprint: Fingerprint,
    preprocessing: Preprocessing,
    step: _TrainingStep,
    resources: _Resources,
    reasons: Mapping[str, str],
) -> tuple[Decision, ...]:
    """Lists every decision with its value and its reason."""
    from fseft.volume.intensity import modality_name

    schemes = dict.fromkeys(scheme.describe() for scheme in preprocessing.intensity)
    architecture = _architecture_reason(model, model.architecture())
    rows = (
        ("modality", modality_name(preprocessing.modality), _modality_reason(fingerprint)),
        ("orientation", preprocessing.orientation, _orientation_reason(fingerprint)),
        ("spacing", f"{_times(preprocessing.spacing_mm)} mm", reasons["spacing"]),
        ("intensity", "; ".join(schemes), reasons["intensity"]),
        ("patch size", f"{_times(step.patch)} voxels", step.reason),
        ("crops per step", str(step.crops), _crops_reason(step)),
        ("memory", show_bytes(step.memory_bytes), _memory_reason(resources)),
        ("architecture", model.card.architecture, architecture),
        ("device", resources.device, _device_reason(resources)),
    )
    return tuple(Decision(name=name, value=value, reason=reason) for name, value, reason in rows)


def _spacing(card: ModelCard, fingerprint: Fingerprint) -> tuple[Millimetres, str]:
    """Selects the target spacing in mm along the axes of the contract, with the reason."""
    from fseft.planning.rules import target_spacing
    from fseft.volume.fingerprint import permute_to_orientation

    if card.contract.spacing_mm is not None:
        return card.contract.spacing_mm, "as the model was trained"
    axes, cases = card.contract.orientation, fingerprint.cases
    spacings = [permute_to_orientation(case.spacing_mm, case.orientation, axes) for case in cases]
    shapes = [
        permute_to_orientation(case.shape_after_crop, case.orientation, axes) for case in cases
    ]
    return target_spacing(spacings, shapes), f"nnU-Net's rule: the median of {len(cases)} cases"


def _training_step(
    card: ModelCard,
    fingerprint: Fingerprint,
    spacing: Millimetres,
    architecture: Architecture,
    resources: _Resources,
) -> _TrainingStep:
    """Returns the first candidate whose training step fits the memory.

    Raises:
        FseftError: Not even the smallest one fits.
    """
    from fseft.learn.training.memory_estimate import training_bytes

    best, reason = _best_patch(card, fingerprint, spacing, architecture, resources.device)
    # Two crops of a smaller patch train better than one of a larger patch.
    min_crops = 1 if card.contract.patch_size or resources.requested else 2
    for patch, crops in _candidates(best, spacing, architecture, min_crops):
        needed = training_bytes(
            card.architecture,
            card.hparams,
            in_channels=len(fingerprint.channels),
            out_channels=1 + len(fingerprint.labels),
            patch_size=patch,
            crops=crops,
        )
        if needed <= resources.limit:
            smaller = f"{_times(best)} would not fit the memory"
            return _TrainingStep(patch, crops, needed, reason if patch == best else smaller)
    raise FseftError(
        f"the smallest training step of {card.architecture} needs {show_bytes(needed)} "
        f"(one crop of {_times(patch)} voxels), the limit is {show_bytes(resources.limit)}",
        hint="Raise `memory`, or use a smaller model.",
    )


def _best_patch(
    card: ModelCard,
    fingerprint: Fingerprint,
    spacing: Millimetres,
    architecture: Architecture,
    device: Device,
) -> tuple[Triple, str]:
    """Returns the patch size to use if memory did not matter, with the reason."""
    from fseft.planning.rules import patch_size, resampled_shape

    if card.contract.patch_size is not None:
        return card.contract.patch_size, "as the model was trained"
    shape = resampled_shape(fingerprint, card.contract.orientation, spacing)
    budget = CPU_BUDGET if device == "cpu" else CUDA_BUDGET
    patch = patch_size(spacing, shape, architecture.divisor, architecture.minimum_patch, budget)
    if all(side >= size for side, size in zip(patch, shape, strict=True)):
        return patch, f"holds the median volume ({_times(shape)} voxels)"
    if device == "cpu":
        return patch, "about 64³ voxels: a training step on a CPU should take seconds"
    return patch, "about 128³ voxels, as long in mm along each axis as that allows"


def _candidates(
    patch: Triple, spacing: Millimetres, architecture: Architecture, min_crops: int
) -> Iterator[tuple[Triple, int]]:
    """Yields patch sizes and crops per step, best first: fewer crops before a smaller patch."""
    from fseft.planning.rules import shrink_patch

    size: Triple | None = patch
    while size is not None:
        for crops in range(CROPS, min_crops - 1, -1):
            yield size, crops
        patch = size
        size = shrink_patch(size, spacing, architecture.divisor, architecture.minimum_patch)
    yield patch, 1


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


def _crops_reason(step: _TrainingStep) -> str:
    return "as in the FSEFT paper" if step.crops == CROPS else f"{CROPS} would not fit the memory"


def _memory_reason(resources: _Resources) -> str:
    source = "requested" if resources.requested else f"{MEMORY_FRACTION:.0%} of the device's memory"
    return (
        f"estimate of a full training step; the limit is {show_bytes(resources.limit)} ({source})"
    )


def _architecture_reason(model: FoundationModel, architecture: Architecture) -> str:
    origin = "the model's" if model.pretrained else "the network to train from random weights"
    return f"{origin}; patch sides divisible by {_times(architecture.divisor)}"


def _device_reason(resources: _Resources) -> str:
    return (
        "no CUDA device, or CPU requested"
        if resources.device == "cpu"
        else "a CUDA device is available"
    )


def show_bytes(count: int) -> str:
    """Formats bytes as `1.5 GB` or `300 MB`, in powers of 1000."""
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"


def _times(values: Triple | Millimetres) -> str:
    return "×".join(f"{value:.4g}" for value in values)
