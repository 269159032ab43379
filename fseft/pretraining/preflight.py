"""Checks of a pre-training against its data, before time is spent on it."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from fseft.errors import FseftError
from fseft.learn.training.memory_estimate import installed_bytes, training_bytes
from fseft.pretraining.configure import format_setting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fseft.pretraining.configure import PretrainRequest
    from fseft.pretraining.data_split import TrainingDatasets
    from fseft.schemas import CaseFingerprint, Fingerprint

_BYTES_PER_VOXEL = 8  # a scan in float32 before and after resampling, at least
_MIN_VOXELS = 8**3  # smaller scans show nothing


def check_window(fingerprints: Sequence[Fingerprint], window: tuple[float, float] | None) -> None:
    """Checks that the window overlaps the intensities of the structures in each CT dataset.

    Args:
        fingerprints: Fingerprints of the datasets.
        window: Lower and upper bound in HU, if the user has set one.

    Raises:
        FseftError: All structures of a dataset are outside the window.
    """
    if window is None:
        return
    for fingerprint in fingerprints:
        if fingerprint.modality != "ct":
            continue
        low = min(statistics.percentile_00_5 for statistics in fingerprint.intensities)
        high = max(statistics.percentile_99_5 for statistics in fingerprint.intensities)
        if high <= window[0] or window[1] <= low:
            cause = f"the window {format_setting(window)} excludes all structures"
            raise FseftError(
                f"{cause}, whose intensities range from {low:g} to {high:g}",
                file=fingerprint.dataset,
                hint="Choose another window.",
            )


def check_grid(fingerprints: Sequence[Fingerprint], request: PretrainRequest) -> None:
    """Checks that scans have a reasonable size at the requested spacing.

    Args:
        fingerprints: A fingerprint of each dataset.
        request: Provides the spacing in mm; without one, nothing is checked.

    Raises:
        FseftError: The largest scan of a dataset does not fit into memory, or has hardly a voxel.
    """
    spacing_mm = request.spacing_mm
    if spacing_mm is None:
        return
    for fingerprint in fingerprints:
        cases = [case for case in fingerprint.cases if case.labelled]
        largest = max(cases, key=lambda case: _num_voxels(case, spacing_mm))
        num_voxels = _num_voxels(largest, spacing_mm)
        cause = ""
        if num_voxels * _BYTES_PER_VOXEL > installed_bytes():
            gigabytes = num_voxels * _BYTES_PER_VOXEL / 1e9
            cause = f"has {num_voxels:.1e} voxels, which needs {gigabytes:,.0f} GB of memory"
            hint = "Choose a larger spacing."
        elif num_voxels < _MIN_VOXELS:
            cause = f"the largest scan has {num_voxels:.0f} voxels"
            hint = "Choose a smaller spacing, in mm."
        if cause:
            raise FseftError(
                f"at a spacing of {format_setting(spacing_mm)} mm {cause}",
                case=largest.name,
                file=fingerprint.dataset,
                hint=hint,
            )


def _num_voxels(case: CaseFingerprint, spacing_mm: Sequence[float]) -> float:
    return prod(case.shape_after_crop) * prod(case.spacing_mm) / prod(spacing_mm)


def check_memory(
    datasets: TrainingDatasets,
    request: PretrainRequest,
    architecture: str,
    hparams: Mapping[str, Any],
) -> None:
    """Checks that a training step on the CPU fits into memory, as far as it can be estimated.

    Args:
        datasets: The datasets; their classes are the outputs of the network.
        request: Options of the pre-training.
        architecture: Name of the network.
        hparams: Hyper-parameters of the network.

    Raises:
        FseftError: The estimate exceeds the memory of this machine.
    """
    if request.device != "cpu" or request.checkpoint_activations or request.shard:
        return
    crops = request.training.crops_per_step or 1
    required = training_bytes(
        architecture,
        hparams,
        in_channels=1,
        out_channels=len(datasets.classes),
        patch_size=request.patch_size,
        crops=crops,
    )
    available = installed_bytes()
    if required > available:
        subject = f"a patch size of {format_setting(request.patch_size)} with {crops} crops"
        raise FseftError(
            f"{subject} needs about {required / 1e9:,.0f} GB of memory, and this machine has "
            f"{available / 1e9:,.0f} GB",
            hint="Use a smaller patch size, fewer crops per step, or activation checkpointing.",
        )
