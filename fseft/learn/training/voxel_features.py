"""Voxels sampled from the features of a frozen network, and the logits of a head on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fseft.volume.label_values import UNANNOTATED

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    from torch import Tensor, nn

    Array = npt.NDArray[Any]


@dataclass(frozen=True)
class VoxelSample:
    """Voxels sampled from several crops.

    Attributes:
        features: (n, F), float32.
        labels: (n,), int64; 0 background, 1.. structures.
        weights: (n,), float32; the number of voxels of the crops that each represents.
        annotated: (n, structures), float32, 1 where the structure is annotated; None if all are.
        members: As for `fseft.learn.training.losses.segmentation_loss`.
    """

    features: Tensor
    labels: Tensor
    weights: Tensor
    annotated: Tensor | None = None
    members: Tensor | None = None

    def batch(self, count: int, generator: torch.Generator) -> VoxelSample:
        """Returns `count` voxels, drawn with replacement; all of them if `count` is not smaller.

        Args:
            count: Number of voxels.
            generator: Generator for the choice, on the CPU.
        """
        if count >= len(self.labels):
            return self
        chosen = torch.randint(len(self.labels), (count,), generator=generator)
        features, labels = self.features[chosen], self.labels[chosen]
        annotated = None if self.annotated is None else self.annotated[chosen]
        return VoxelSample(features, labels, self.weights[chosen], annotated, self.members)

    def to(self, device: str) -> VoxelSample:
        """Returns the sample on a device."""
        features = self.features.to(device)
        labels = self.labels.to(device)
        annotated = None if self.annotated is None else self.annotated.to(device)
        return VoxelSample(features, labels, self.weights.to(device), annotated)


def sample_voxels(
    features: Array,
    labels: Array,
    count: int,
    rng: np.random.Generator,
    annotated: Sequence[float] | None = None,
) -> VoxelSample:
    """Samples voxels of a crop: as many of each class, at its border and away from it.

    Args:
        features: (F, i, j, k).
        labels: (i, j, k); 0 background, 1.. structures; voxels that are `UNANNOTATED` are left out.
        count: Approximate number of voxels.
        rng: Generator for the choice of voxels.
        annotated: 1 for each structure that is annotated in the crop, else 0; None if all are.
    """
    strata = _strata(labels)
    per_stratum = max(1, count // max(len(strata), 1))
    chosen, weights = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    for stratum in strata:
        voxels = stratum
        if len(stratum) > per_stratum:
            voxels = rng.choice(stratum, per_stratum, replace=False)
        chosen.append(voxels)
        weights.append(np.full(len(voxels), len(stratum) / len(voxels), np.float32))
    places = np.concatenate(chosen)
    columns = features.reshape(len(features), -1)[:, places]
    return VoxelSample(
        torch.from_numpy(columns.T.astype(np.float32)),
        torch.from_numpy(labels.reshape(-1)[places].astype(np.int64)),
        torch.from_numpy(np.concatenate(weights)),
        None if annotated is None else torch.tensor(annotated).expand(len(places), -1),
    )


def _strata(labels: Array) -> list[Array]:
    """Returns the flat indices of the voxels of each class, at its border and away from it."""
    border = _border(labels)
    strata = []
    for value in np.setdiff1d(labels, [UNANNOTATED]):
        inside = labels == value
        strata += [np.flatnonzero(inside & border), np.flatnonzero(inside & ~border)]
    return [stratum for stratum in strata if len(stratum)]


def _border(labels: Array) -> npt.NDArray[np.bool_]:
    """Returns a mask of the voxels with a neighbour of another class along an axis."""
    border = np.zeros(labels.shape, bool)
    for axis in range(labels.ndim):
        along_axis = np.moveaxis(labels, axis, 0)
        changes = along_axis[1:] != along_axis[:-1]
        border_along_axis = np.moveaxis(border, axis, 0)
        border_along_axis[1:] |= changes
        border_along_axis[:-1] |= changes
    return border


def concatenate(samples: Sequence[VoxelSample]) -> VoxelSample:
    """Returns the voxels of several samples as one sample."""
    annotated = [sample.annotated for sample in samples if sample.annotated is not None]
    return VoxelSample(
        torch.cat([sample.features for sample in samples]),
        torch.cat([sample.labels for sample in samples]),
        torch.cat([sample.weights for sample in samples]),
        torch.cat(annotated) if annotated else None,
    )


def voxel_logits(head: nn.Module, features: Tensor) -> Tensor:
    """Returns the logits of a pointwise head for a list of voxels.

    Args:
        head: Maps features (B, F, i, j, k) to logits (B, C, i, j, k).
        features: (n, F).

    Returns:
        Logits (n, C).
    """
    logits: Tensor = head(features.T[None, :, :, None, None])
    return logits[0, :, :, 0, 0].T
