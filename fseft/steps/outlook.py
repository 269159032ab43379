"""What a pre-training is about to do, told before it takes its time; and grids on which it would come to nothing."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from fseft.errors import FseftError, counted
from fseft.learn.memory import installed_bytes
from fseft.steps.pretrain_request import in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fseft.documents import CaseFingerprint, Fingerprint
    from fseft.steps.assembly import Assembly
    from fseft.steps.pretrain_request import PretrainRequest

BYTES_PER_VOXEL = 8
"""Of a scan that is resampled: the new array and the one that it is made of, at least."""

LEAST_OF_A_PATCH = 1 / 64
"""A scan of fewer voxels than this share of a patch is air and rim."""


def outlook(assembly: Assembly, request: PretrainRequest, architecture: str, parameters: int, ranks: int) -> list[str]:
    """Data, intensities, network and schedule, a line each."""
    held_out = {source.name: len(source.cases) for source in assembly.held_out}
    datasets = (
        f"{source.name}: {counted(len(source.cases), 'case')} to learn from, {held_out.get(source.name, 0)} held out"
        for source in assembly.training
    )
    scales = (f"{modality.upper()} {how.describe()}" for modality, how in assembly.contract.intensity.items())
    spacing = f"{in_words(request.spacing_mm)} mm" if request.spacing_mm else "each dataset's own"
    epochs, steps = counted(request.recipe.epochs, "epoch"), counted(request.steps_per_epoch, "step")
    crops = f"{counted(request.recipe.crops or 1, 'crop')} of {'×'.join(map(str, request.patch_size))} voxels"
    each = f"{crops} on each of {ranks} ranks" if ranks > 1 else crops
    return [
        *datasets,
        f"{counted(len(assembly.classes), 'structure')}: {', '.join(assembly.classes)}",
        f"intensities: {', '.join(scales)}; spacing: {spacing}",
        f"{architecture}, {parameters:,} parameters, on {request.device}: {epochs} of {steps}, each of {each}",
    ]


def not_judged(assembly: Assembly) -> list[str]:
    """The structures that no held-out case has, of which the curve cannot tell."""
    judged = {index for source in assembly.held_out for index in source.having}
    return [name for index, name in enumerate(assembly.classes, start=1) if index not in judged]


def check_grid(fingerprints: Sequence[Fingerprint], request: PretrainRequest, warn: Callable[[str], None]) -> None:
    """See that scans have a sensible size at the spacing that was asked for.

    Raises:
        FseftError: One is larger than the memory.
    """
    if request.spacing_mm is None:
        return
    asked = f"at --spacing {in_words(request.spacing_mm)}"
    for one in fingerprints:
        sizes = {case.name: _voxels(case, request.spacing_mm) for case in one.cases if case.labelled}
        largest = max(sizes, key=lambda name: sizes[name])
        if sizes[largest] * BYTES_PER_VOXEL > installed_bytes():
            gigabytes = sizes[largest] * BYTES_PER_VOXEL / 1e9
            raise FseftError(
                f"{asked} has {sizes[largest]:.1e} voxels, which takes {gigabytes:,.0f} GB of memory",
                case=largest,
                file=one.dataset,
                hint="Give a larger --spacing.",
            )
        if sizes[largest] < LEAST_OF_A_PATCH * prod(request.patch_size):
            warn(f"{one.dataset}: {asked}, its largest scan has only {sizes[largest]:.0f} voxels; is it in mm?")


def _voxels(case: CaseFingerprint, spacing_mm: Sequence[float]) -> float:
    return prod(case.shape_after_crop) * prod(case.spacing_mm) / prod(spacing_mm)
