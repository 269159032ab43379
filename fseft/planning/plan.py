"""Plan: contract, fingerprint and resources decide how a dataset is processed for a model, and say why."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fseft.errors import FseftError
from fseft.experiment.devices import select_device
from fseft.model_zoo.catalogue import SCRATCH, find_model_card
from fseft.planning.dataset_reading import read_dataset
from fseft.planning.fingerprinting import fingerprint_dataset
from fseft.schemas import Contract, Decision, Fingerprint, Plan, Preprocessing
from fseft.workspace import digest, read_document, write_document

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    from fseft.learn.networks.roles import Architecture
    from fseft.parallel import Workers
    from fseft.schemas import Dataset, Millimetres, ModelCard, Triple
    from fseft.workspace import Workspace

Device = Literal["cpu", "cuda"]

CROPS = 6  # per step, as in the FSEFT paper
CPU_BUDGET = 64**3  # voxels of a patch
CUDA_BUDGET = 128**3
SHARE = 0.8  # of the memory that a plan may fill where no limit is given: a GPU's free one, a computer's whole


@dataclass(frozen=True)
class _Resources:
    device: Device
    limit: int
    told: bool
    """Whether the limit was asked for, not found."""


@dataclass(frozen=True)
class _Size:
    """Patch and crops that fit."""

    patch: Triple
    crops: int
    needed: int
    reason: str


def make_plan(
    folder: Path,
    model_name: str,
    store: Workspace,
    *,
    memory_bytes: int | None = None,
    device: str = "auto",
    workers: Workers = 1,
    strict: bool = False,
    progress: Callable[[str], None] | None = None,
    reuse: bool = False,
) -> tuple[Fingerprint, Plan]:
    """Measure a dataset, or read what was measured, and plan it for a model; both are written to the store.

    Args:
        folder: The dataset.
        model_name: A foundation model, or "none".
        store: The workspace.
        memory_bytes: What a training step may take; by default most of what the device has.
        device: "auto", "cpu" or "cuda".
        workers: Who measures.
        strict: As for `read_dataset`.
        progress: Called with the name of each case that was measured.
        reuse: Take the plan that is there, if it was made for this model and these files on a device that is there
            too, and neither memory nor device is asked for.

    Raises:
        FseftError: The dataset is broken, the model unknown or of other channels, the device absent, or the
            smallest training step too large for the memory.
    """
    dataset = read_dataset(folder, strict=strict)
    card = find_model_card(model_name, store)
    _check_channels(card, dataset)
    fingerprint = fingerprint_dataset(dataset, store, workers=workers, progress=progress)
    path = store.plan(dataset.name, model_name)
    if reuse and memory_bytes is None and device == "auto" and path.is_file():
        known = read_document(path, Plan)
        if (known.fingerprint, known.card) == (fingerprint.content, _key(card)) and _is_there(
            known.device
        ):
            return fingerprint, known
    plan = plan_for(model_name, fingerprint, store, memory_bytes=memory_bytes, device=device)
    write_document(path, plan)
    return fingerprint, plan


def plan_for(
    model_name: str,
    fingerprint: Fingerprint,
    store: Workspace,
    *,
    memory_bytes: int | None = None,
    device: str = "auto",
) -> Plan:
    """Plan a dataset that was measured; arguments and errors are those of `make_plan`, and nothing is written."""
    return _plan(find_model_card(model_name, store), fingerprint, _resources(device, memory_bytes))


def _key(card: ModelCard) -> str:
    """What of a model a plan depends on."""
    return digest(
        card.model_dump(mode="json", include={"name", "architecture", "hparams", "contract"})
    )


def _is_there(device: Device) -> bool:
    return device == "cpu" or select_device("auto") == device


def restrict_intensity(
    plan: Plan, contract: Contract, dataset: Dataset, support: Collection[str]
) -> Plan:
    """The plan with its intensity statistics taken from the support cases only.

    A label that is used for any decision counts in k; statistics of the foreground are such a decision. What the
    model's contract says of the modality stays.
    """
    from fseft.volume.fingerprint import foreground_statistics
    from fseft.volume.intensity import select_intensity_scheme

    modality = plan.preprocessing.modality
    if modality in contract.intensity or all(
        one.scheme != "clip-zscore" for one in plan.preprocessing.intensity
    ):
        return plan
    intensity, _ = select_intensity_scheme(
        contract, modality, foreground_statistics(dataset, support)
    )
    return plan.model_copy(
        update={"preprocessing": plan.preprocessing.model_copy(update={"intensity": intensity})}
    )


def _check_channels(card: ModelCard, dataset: Dataset) -> None:
    if card.name != SCRATCH and card.contract.channels != len(dataset.channels):
        raise FseftError(
            f"the model {card.name} takes {card.contract.channels} channel(s), {dataset.name} has "
            f"{len(dataset.channels)} ({', '.join(dataset.channels)})",
            hint="Take another model, or a dataset with these channels only.",
        )


def _resources(device: str, memory_bytes: int | None) -> _Resources:
    import torch

    from fseft.learn.training.memory_estimate import installed_bytes

    chosen: Device = "cuda" if select_device(device) == "cuda" else "cpu"
    if memory_bytes is not None:
        return _Resources(chosen, memory_bytes, told=True)
    total = torch.cuda.mem_get_info()[0] if chosen == "cuda" else installed_bytes()
    return _Resources(chosen, int(SHARE * total), told=False)


def _plan(card: ModelCard, fingerprint: Fingerprint, resources: _Resources) -> Plan:
    from fseft.learn.networks import backbone
    from fseft.planning.rules import check_contract
    from fseft.volume.intensity import select_intensity_scheme

    contract = card.contract
    spacing, spacing_reason = _spacing(card, fingerprint)
    intensity, intensity_reason = select_intensity_scheme(
        contract, fingerprint.modality, fingerprint.intensities
    )
    network = backbone.get_architecture(card.architecture)
    size = _size(card, fingerprint, spacing, network, resources)
    chosen = Preprocessing(
        orientation=contract.orientation,
        spacing_mm=spacing,
        modality=fingerprint.modality,
        intensity=intensity,
        patch_size=size.patch,
    )
    schemes = "; ".join(dict.fromkeys(scheme.describe() for scheme in intensity))
    decisions = (
        Decision(name="modality", value=fingerprint.modality, reason=_modality_reason(fingerprint)),
        Decision(
            name="orientation", value=contract.orientation, reason=_orientation_reason(fingerprint)
        ),
        Decision(name="spacing", value=f"{_times(spacing)} mm", reason=spacing_reason),
        Decision(name="intensity", value=schemes, reason=intensity_reason),
        Decision(name="patch size", value=f"{_times(size.patch)} voxels", reason=size.reason),
        Decision(name="crops per step", value=str(size.crops), reason=_crops_reason(size)),
        Decision(name="memory", value=show_bytes(size.needed), reason=_memory_reason(resources)),
        Decision(
            name="architecture", value=card.architecture, reason=_architecture_reason(card, network)
        ),
        Decision(name="device", value=resources.device, reason=_device_reason(resources)),
    )
    return Plan(
        dataset=fingerprint.dataset,
        model=card.name,
        card=_key(card),
        fingerprint=fingerprint.content,
        architecture=card.architecture,
        hparams=card.hparams,
        preprocessing=chosen,
        crops_per_step=size.crops,
        memory_bytes=size.needed,
        device=resources.device,
        decisions=decisions,
        warnings=(*fingerprint.warnings, *check_contract(contract, fingerprint, chosen)),
    )


def _spacing(card: ModelCard, fingerprint: Fingerprint) -> tuple[Millimetres, str]:
    from fseft.planning.rules import target_spacing
    from fseft.volume.fingerprint import permute_to_orientation

    if card.contract.spacing_mm is not None:
        return card.contract.spacing_mm, "as the model was trained"
    orientation = card.contract.orientation
    spacings = [
        permute_to_orientation(case.spacing_mm, case.orientation, orientation)
        for case in fingerprint.cases
    ]
    shapes = [
        permute_to_orientation(case.shape_after_crop, case.orientation, orientation)
        for case in fingerprint.cases
    ]
    return target_spacing(spacings, shapes), f"nnU-Net's rule: the median of {len(spacings)} cases"


def _size(
    card: ModelCard,
    fingerprint: Fingerprint,
    spacing: Millimetres,
    network: Architecture,
    resources: _Resources,
) -> _Size:
    """The first candidate whose training step fits the memory."""
    from fseft.learn.training.memory_estimate import training_bytes

    best, reason = _best_patch(card, fingerprint, spacing, network, resources.device)
    # Two crops of a smaller patch learn better than one, where neither the model nor the user has a say.
    least_crops = 1 if card.contract.patch_size or resources.told else 2
    smallest, needed = best, 0
    for patch, crops in _candidates(best, spacing, network, least_crops):
        needed = training_bytes(
            card.architecture,
            card.hparams,
            in_channels=len(fingerprint.channels),
            out_channels=1 + len(fingerprint.labels),
            patch_size=patch,
            crops=crops,
        )
        if needed <= resources.limit:
            why = reason if patch == best else f"{_times(best)} would not fit the memory"
            return _Size(patch, crops, needed, why)
        smallest = patch
    raise FseftError(
        f"the smallest training step of {card.architecture} needs {show_bytes(needed)} (one crop of "
        f"{_times(smallest)} voxels), the limit is {show_bytes(resources.limit)}",
        hint="Give more --memory, or take a smaller model.",
    )


def _best_patch(
    card: ModelCard,
    fingerprint: Fingerprint,
    spacing: Millimetres,
    network: Architecture,
    device: Device,
) -> tuple[Triple, str]:
    """The patch that one would take if memory were no matter."""
    from fseft.planning.rules import patch_size, resampled_shape

    if card.contract.patch_size is not None:
        return card.contract.patch_size, "as the model was trained"
    shape = resampled_shape(fingerprint, card.contract.orientation, spacing)
    budget = CPU_BUDGET if device == "cpu" else CUDA_BUDGET
    patch = patch_size(spacing, shape, network.divisor, network.minimum_patch, budget)
    if all(side >= size for side, size in zip(patch, shape, strict=True)):
        return patch, f"holds the median volume ({_times(shape)} voxels)"
    if device == "cpu":
        return patch, "about 64³ voxels: a training step on a CPU should take seconds"
    return patch, "about 128³ voxels, as long in mm along each axis as that allows"


def _candidates(
    patch: Triple, spacing: Millimetres, network: Architecture, least_crops: int
) -> Iterator[tuple[Triple, int]]:
    """Patch and crops, best first: fewer crops before a smaller patch, down to `least_crops`."""
    from fseft.planning.rules import shrink_patch

    patches: list[Triple] = []
    following: Triple | None = patch
    while following is not None:
        patches.append(following)
        following = shrink_patch(following, spacing, network.divisor, network.minimum_patch)
    yield from ((one, crops) for one in patches for crops in range(CROPS, least_crops - 1, -1))
    yield patches[-1], 1


def _modality_reason(fingerprint: Fingerprint) -> str:
    kind = "whole numbers" if fingerprint.integer else "fractions"
    return f"from the channel {', '.join(fingerprint.channels)} and the values ({kind})"


def _orientation_reason(fingerprint: Fingerprint) -> str:
    stored = Counter(
        case.orientation[::-1] for case in fingerprint.cases
    )  # in the order that viewers show: x, y, z
    files = ", ".join(f"{count} {code}" for code, count in stored.most_common())
    return f"the model's axes, in which all sizes here are told; x, y, z of the files: {files}"


def _crops_reason(size: _Size) -> str:
    return "as in the FSEFT paper" if size.crops == CROPS else f"{CROPS} would not fit the memory"


def _memory_reason(resources: _Resources) -> str:
    whose = "--memory" if resources.told else f"{SHARE:.0%} of what the device has"
    return f"estimate of a full training step; the limit is {show_bytes(resources.limit)} ({whose})"


def _architecture_reason(card: ModelCard, network: Architecture) -> str:
    whose = "the network to train from random weights" if card.name == SCRATCH else "the model's"
    return f"{whose}; sides divisible by {_times(network.divisor)}"


def _device_reason(resources: _Resources) -> str:
    return "no CUDA device, or none wanted" if resources.device == "cpu" else "there is one"


def show_bytes(count: int) -> str:
    """Bytes as `1.5 GB` or `300 MB`, in powers of 1000 as `--memory` takes them."""
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"


def _times(values: Triple | Millimetres) -> str:
    return "×".join(f"{value:.4g}" for value in values)
