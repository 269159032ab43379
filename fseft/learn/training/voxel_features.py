"""Frozen features, computed once: voxels sampled from them, and the losses of a head on voxels alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F

from fseft.learn.training.losses import SMOOTH

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    from torch import Tensor, nn

    Array = npt.NDArray[Any]


@dataclass(frozen=True)
class VoxelSample:
    """Voxels of several crops.

    Attributes:
        features: (n, F), float32.
        labels: (n,), 0 background, 1.. structures.
        weights: (n,), how many voxels of the crops each one stands for.
    """

    features: Tensor
    labels: Tensor
    weights: Tensor

    def batch(self, count: int, generator: torch.Generator) -> VoxelSample:
        """So many of them, drawn at random; all if there are not more."""
        if count >= len(self.labels):
            return self
        chosen = torch.randint(len(self.labels), (count,), generator=generator)
        return VoxelSample(self.features[chosen], self.labels[chosen], self.weights[chosen])

    def to(self, device: str) -> VoxelSample:
        """The same on another device."""
        return VoxelSample(
            self.features.to(device), self.labels.to(device), self.weights.to(device)
        )


def sample_voxels(
    features: Array, labels: Array, count: int, rng: np.random.Generator
) -> VoxelSample:
    """Sample voxels of a crop with the same number from each class, at its border and away from it.

    Args:
        features: (F, i, j, k).
        labels: (i, j, k), 0 background, 1.. structures.
        count: How many, about.
        rng: Draws them.
    """
    border = _border(labels)
    strata = [
        found
        for value in np.unique(labels)
        for where in (border, ~border)
        if len(found := np.flatnonzero((labels == value) & where))
    ]
    share = max(1, count // len(strata))
    drawn = [one if len(one) <= share else rng.choice(one, share, replace=False) for one in strata]
    weights = [
        np.full(len(part), len(one) / len(part), np.float32)
        for part, one in zip(drawn, strata, strict=True)
    ]
    places = np.concatenate(drawn)
    return VoxelSample(
        torch.from_numpy(features.reshape(len(features), -1)[:, places].T.astype(np.float32)),
        torch.from_numpy(labels.reshape(-1)[places].astype(np.int64)),
        torch.from_numpy(np.concatenate(weights)),
    )


def concatenate(parts: Sequence[VoxelSample]) -> VoxelSample:
    """All voxels of several samples."""
    return VoxelSample(
        torch.cat([part.features for part in parts]),
        torch.cat([part.labels for part in parts]),
        torch.cat([part.weights for part in parts]),
    )


def voxel_logits(head: nn.Module, features: Tensor) -> Tensor:
    """The logits (n, C) of a pointwise head on features (n, F)."""
    logits: Tensor = head(features.T[None, :, :, None, None])
    return logits[0, :, :, 0, 0].T


def voxel_loss(logits: Tensor, labels: Tensor, weights: Tensor, kind: str) -> Tensor:
    """`segmentation_loss` of the crops that weighted voxels stand for.

    Args:
        logits: (n, 1 + structures).
        labels: (n,).
        weights: (n,).
        kind: `dice` or `dice_ce`.
    """
    logits = logits.float()
    probabilities = weights[:, None] * logits.softmax(1)[:, 1:]
    reference = F.one_hot(labels, logits.shape[1])[:, 1:]
    overlap = (probabilities * reference).sum(0)
    total = probabilities.sum(0) + (weights[:, None] * reference).sum(0)
    loss = (1 - (2 * overlap + SMOOTH) / (total + SMOOTH)).mean()
    return loss + weighted_cross_entropy(logits, labels, weights) if kind == "dice_ce" else loss


def weighted_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Mean over the voxels that the weighted ones stand for."""
    each = F.cross_entropy(logits, labels, reduction="none")
    return (weights * each).sum() / weights.sum()


def _border(labels: Array) -> npt.NDArray[np.bool_]:
    """Voxels with a neighbour of another class along an axis."""
    border = np.zeros(labels.shape, bool)
    for axis in range(labels.ndim):
        ahead, behind = np.swapaxes(labels, 0, axis)[1:], np.swapaxes(labels, 0, axis)[:-1]
        changes, along = ahead != behind, np.swapaxes(border, 0, axis)
        along[1:] |= changes
        along[:-1] |= changes
    return border
