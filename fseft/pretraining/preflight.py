"""What a pre-training is about to do, told before it takes its time; and what it would come to nothing with."""

from __future__ import annotations

from collections import Counter
from math import prod
from typing import TYPE_CHECKING, Any

from fseft.errors import FseftError, pluralise
from fseft.learn.training.memory_estimate import installed_bytes, training_bytes
from fseft.pretraining.configure import in_words

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fseft.pretraining.configure import PretrainRequest
    from fseft.pretraining.datasets import TrainingDatasets
    from fseft.schemas import CaseFingerprint, Contract, Fingerprint, ModelCard

BYTES_PER_VOXEL = 8
"""Of a scan that is resampled: the new array and the one that it is made of, at least."""

LEAST_VOXELS = 8**3
"""A scan of fewer shows nothing."""


def pretraining_summary(
    assembly: TrainingDatasets,
    request: PretrainRequest,
    architecture: str,
    parameters: int,
    ranks: int,
) -> list[str]:
    """Data, intensities, network and schedule, a line each."""
    held_out = {source.name: len(source.cases) for source in assembly.held_out}
    datasets = (
        f"{source.name}: {pluralise(len(source.cases), 'case')} to learn from, {held_out.get(source.name, 0)} held out"
        for source in assembly.training
    )
    cases = Counter(
        index for source in assembly.training for case in source.cases for index in case.drawn
    )
    drawn = (f"{name} {cases[index]}" for index, name in enumerate(assembly.classes, start=1))
    scales = (
        f"{modality.upper()} {how.describe()}"
        for modality, how in assembly.contract.intensity.items()
    )
    spacing = f"{in_words(request.spacing_mm)} mm" if request.spacing_mm else "each dataset's own"
    epochs, steps = (
        pluralise(request.recipe.epochs, "epoch"),
        pluralise(request.steps_per_epoch, "step"),
    )
    size = "×".join(map(str, request.patch_size))
    crops = f"{pluralise(request.recipe.crops_per_step or 1, 'crop')} of {size} voxels"
    each = f"{crops} on each of {ranks} ranks" if ranks > 1 else crops
    return [
        *datasets,
        f"{pluralise(len(assembly.classes), 'structure')}, in so many of these cases: {', '.join(drawn)}",
        f"intensities: {', '.join(scales)}; spacing: {spacing}",
        f"{architecture}, {parameters:,} parameters, on {request.device}: {epochs} of {steps}, each of {each}",
    ]


def contract_differences(card: ModelCard, contract: Contract) -> list[str]:
    """What the weights to start from were trained to expect of an image that the new model will not get, in words.

    Args:
        card: Of the model that is started from.
        contract: Of the new model.
    """
    before, told = card.contract, []
    if before.orientation != contract.orientation:
        told.append(
            f"axes {before.orientation}, not {contract.orientation}, which nothing here can change"
        )
    if before.spacing_mm and before.spacing_mm != contract.spacing_mm:
        now = in_words(contract.spacing_mm) if contract.spacing_mm else "each dataset's own"
        asked = in_words(before.spacing_mm)
        told.append(f"a spacing of {asked} mm, not {now} (--spacing {asked} gives it)")
    for modality in before.intensity.keys() & contract.intensity.keys():
        scale, now = before.intensity[modality], contract.intensity[modality].describe()
        if scale != contract.intensity[modality]:
            gives = (
                f" (--window={scale.low:g},{scale.high:g} gives it)"
                if scale.scheme == "window"
                else ""
            )
            told.append(f"{modality.upper()} {scale.describe()}, not {now}{gives}")
    return told


def classes_without_validation(assembly: TrainingDatasets) -> list[str]:
    """The structures that no held-out case has, of which the curve cannot tell."""
    judged = {index for source in assembly.held_out for index in source.cases_with}
    return [name for index, name in enumerate(assembly.classes, start=1) if index not in judged]


def check_window(fingerprints: Sequence[Fingerprint], window: tuple[float, float] | None) -> None:
    """See that the window shows something of each dataset of CT.

    Raises:
        FseftError: It does not.
    """
    if window is None:
        return
    for one in (one for one in fingerprints if one.modality == "ct"):
        low = min(stats.percentile_00_5 for stats in one.intensities)
        high = max(stats.percentile_99_5 for stats in one.intensities)
        if high <= window[0] or window[1] <= low:
            raise FseftError(
                f"--window={in_words(window)} shows nothing of it: its structures are from {low:g} to {high:g}",
                file=one.dataset,
                hint="Give another window.",
            )


def check_memory(
    assembly: TrainingDatasets,
    request: PretrainRequest,
    architecture: str,
    hparams: Mapping[str, Any],
) -> None:
    """See that a training step fits the memory of the computer, as far as it can be told before.

    Raises:
        FseftError: It does not.
    """
    if request.device != "cpu" or request.recompute or request.shard:
        return
    needed = training_bytes(
        architecture,
        hparams,
        in_channels=1,
        out_channels=len(assembly.classes),
        patch_size=request.patch_size,
        crops=request.recipe.crops_per_step or 1,
    )
    if needed > installed_bytes():
        asked = (
            f"--patch {in_words(request.patch_size)} with --crops {request.recipe.crops_per_step}"
        )
        raise FseftError(
            f"{asked} takes about {needed / 1e9:,.0f} GB of memory, and there are {installed_bytes() / 1e9:,.0f}",
            hint="Give a smaller --patch, fewer --crops, or --checkpointing.",
        )


def check_grid(fingerprints: Sequence[Fingerprint], request: PretrainRequest) -> None:
    """See that scans have a sensible size at the spacing that was asked for.

    Raises:
        FseftError: The largest of a dataset does not fit the memory, or has hardly a voxel.
    """
    if request.spacing_mm is None:
        return
    asked = f"at --spacing {in_words(request.spacing_mm)}"
    for one in fingerprints:
        sizes = {
            case.name: _voxels(case, request.spacing_mm) for case in one.cases if case.labelled
        }
        largest = max(sizes, key=lambda name: sizes[name])
        if sizes[largest] * BYTES_PER_VOXEL > installed_bytes():
            gigabytes = sizes[largest] * BYTES_PER_VOXEL / 1e9
            raise FseftError(
                f"{asked} has {sizes[largest]:.1e} voxels, which takes {gigabytes:,.0f} GB of memory",
                case=largest,
                file=one.dataset,
                hint="Give a larger --spacing.",
            )
        if sizes[largest] < LEAST_VOXELS:
            raise FseftError(
                f"{asked} its largest scan has {sizes[largest]:.0f} voxels",
                case=largest,
                file=one.dataset,
                hint="Give a smaller --spacing, in mm.",
            )


def _voxels(case: CaseFingerprint, spacing_mm: Sequence[float]) -> float:
    return prod(case.shape_after_crop) * prod(case.spacing_mm) / prod(spacing_mm)
