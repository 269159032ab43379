"""Losses: soft Dice with or without cross-entropy, and their masked form for partial labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor

SMOOTH = 1.0


def soft_dice(probabilities: Tensor, reference: Tensor) -> Tensor:
    """1 - Dice per class over all voxels of the batch (Milletari et al. 2016, linear denominator), shape (C,).

    Args:
        probabilities: (B, C, i, j, k).
        reference: The same shape, 0 or 1.
    """
    dims = (0, 2, 3, 4)
    overlap = (probabilities * reference).sum(dims)
    total = probabilities.sum(dims) + reference.sum(dims)
    return 1 - (2 * overlap + SMOOTH) / (total + SMOOTH)


def structure_masks(labels: Tensor, count: int) -> Tensor:
    """One float32 mask per structure 1 to `count`: (B, i, j, k) -> (B, count, i, j, k).

    Not `one_hot`, which takes eight bytes for each voxel and class.
    """
    structures = torch.arange(1, count + 1, device=labels.device).view(1, -1, 1, 1, 1)
    return (labels[:, None] == structures).float()


def segmentation_loss(logits: Tensor, labels: Tensor, kind: str) -> Tensor:
    """`dice`: soft Dice of the structures, background left out; `dice_ce`: plus cross-entropy.

    Args:
        logits: (B, 1 + structures, i, j, k).
        labels: (B, i, j, k), long; 0 is background.
        kind: `dice` or `dice_ce`.
    """
    logits = logits.float()
    loss = soft_dice(logits.softmax(1)[:, 1:], structure_masks(labels, logits.shape[1] - 1)).mean()
    return loss + F.cross_entropy(logits, labels) if kind == "dice_ce" else loss


def masked_losses(logits: Tensor, reference: Tensor, annotated: Tensor) -> Tensor:
    """Dice + binary cross-entropy of each case, summed over the classes that it annotates, shape (B,).

    Divided by the number of annotated (case, class) pairs, their sum is the masked mean of FSEFT (Silva-Rodríguez
    et al. 2025): sum of w * loss / sum of w. Sums, not means, so that they can be added over ranks.

    Args:
        logits: (B, C, i, j, k).
        reference: The same shape, 0 or 1.
        annotated: (B, C), 1 where class c is annotated in case b.
    """
    logits = logits.float()
    dims = (2, 3, 4)
    probabilities = logits.sigmoid()
    overlap = (probabilities * reference).sum(dims)
    dice = 1 - (2 * overlap + SMOOTH) / (probabilities.sum(dims) + reference.sum(dims) + SMOOTH)
    entropy = F.binary_cross_entropy_with_logits(logits, reference, reduction="none").mean(dims)
    return ((dice + entropy) * annotated).sum(1)
