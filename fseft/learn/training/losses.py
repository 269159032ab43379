"""The input of segmentation losses, and their form for exclusive and for partial labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from fseft.learn.training.components import load_component
from fseft.volume.label_values import IGNORED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

_SMALLEST = 1e-6  # of a sum of weights that is divided by
SMOOTH = 1.0
"""Added to numerator and denominator of Dice, so that an absent structure has a Dice of 1."""


@dataclass(frozen=True)
class Predictions:
    """Predictions and reference of the voxels that a loss compares.

    `sum`, `mean`, `dice` and `cross_entropy` reduce over voxels with their weights, to one value
    per group and structure, (G, S): G is 1 where the samples are pooled, else B.

    Attributes:
        logits: (B, C, ...) float32, with any spatial axes, or none for a list of voxels.
        reference: (B, S, ...) float32, 1 inside the structure, else 0.
        labels: (B, ...) int64, 0 background, where the classes exclude each other (softmax); then
            C = 1 + S. None where the structures are independent (sigmoid); then C = S.
        weights: (B, 1 or S, ...), the number of voxels that each counts as, 0 where a structure is
            not annotated; None counts all as 1.
        pooled: Whether the voxels of all samples are scored together, as in batch Dice.
        progress: Fraction of the training that has passed, 0 to 1, for losses that change over it.

    Examples:
        A Tversky loss that weighs misses more than false alarms:

        >>> def tversky_loss(predictions):
        ...     p, reference = predictions.probabilities, predictions.reference
        ...     overlap = predictions.sum(p * reference)
        ...     missed = predictions.sum((1 - p) * reference)
        ...     false = predictions.sum(p * (1 - reference))
        ...     return 1 - (overlap + 1) / (overlap + 0.7 * missed + 0.3 * false + 1)
    """

    logits: Tensor
    reference: Tensor
    labels: Tensor | None = None
    weights: Tensor | None = None
    pooled: bool = False
    progress: float = 0.0

    @property
    def probabilities(self) -> Tensor:
        """The predicted probability of each structure, (B, S, ...), without the background."""
        if self.labels is None:
            return self.logits.sigmoid()
        return self.logits.softmax(1)[:, 1:]

    def sum(self, values: Tensor) -> Tensor:
        """Returns the weighted sum over voxels of values (B, S or 1, ...)."""
        weighted = values if self.weights is None else self.weights * values
        axes = [*range(0 if self.pooled else 2, values.ndim)]
        if self.pooled:
            axes.remove(1)
            return weighted.sum(axes)[None]
        return weighted.sum(axes) if axes else weighted

    def mean(self, values: Tensor) -> Tensor:
        """Returns the weighted mean over voxels of values (B, S or 1, ...); 0 of no voxels."""
        total = self.sum(values)
        if self.weights is None:
            return total / (values.numel() / total.numel())
        return total / self.sum(torch.ones_like(values)).clamp_min(_SMALLEST)

    def dice(self) -> Tensor:
        """Returns the soft Dice of each structure, (G, S), with a linear denominator."""
        probabilities = self.probabilities
        overlap = self.sum(probabilities * self.reference)
        total = self.sum(probabilities) + self.sum(self.reference)
        return (2 * overlap + SMOOTH) / (total + SMOOTH)

    def cross_entropy(self) -> Tensor:
        """Returns the cross-entropy: of the softmax, (G, 1), or binary by structure, (G, S)."""
        return self.mean(self._voxel_cross_entropy())

    def weighted_cross_entropy(self) -> Tensor:
        """Returns the cross-entropy with class weights of 1 / sqrt(frequency in the batch).

        Weights of 1 / frequency predict small structures far too large, equal weights lose them.

        Returns:
            (G, 1) for the softmax, (G, S) for independent structures, as `cross_entropy`.
        """
        frequencies = self.mean(self.reference)
        if self.labels is not None:
            background = 1 - frequencies.sum(1, keepdim=True)
            class_weights = _inverse_root(torch.cat([background, frequencies], 1))
            ones = [1] * (self.labels.ndim - 1)
            table = class_weights.view(*class_weights.shape, *ones)
            table = table.expand(len(self.labels), -1, *self.labels.shape[1:])
            weights = table.gather(1, self.labels[:, None])
        else:
            shape = [*frequencies.shape, *[1] * (self.reference.ndim - 2)]
            inside = _inverse_root(frequencies).view(shape)
            outside = _inverse_root(1 - frequencies).view(shape)
            weights = torch.where(self.reference > 0, inside, outside)
        total = self.sum(weights * self._voxel_cross_entropy())
        return total / self.sum(weights).clamp_min(_SMALLEST)

    def _voxel_cross_entropy(self) -> Tensor:
        """Returns the cross-entropy of each voxel, (B, 1 or S, ...)."""
        if self.labels is not None:
            return F.cross_entropy(self.logits, self.labels, reduction="none")[:, None]
        return F.binary_cross_entropy_with_logits(self.logits, self.reference, reduction="none")


Loss = Callable[[Predictions], "Tensor"]
"""A loss: the value of each group and structure, (G, S)."""


def load_loss(name: str, settings: Mapping[str, Any] = MappingProxyType({})) -> Loss:
    """Returns a loss by its name, with its settings.

    Args:
        name: As listed by `fseft show loss`.
        settings: Values of the loss's configuration; the others have their defaults.

    Raises:
        FseftError: No installed package provides the name.
    """
    return load_component("loss", name, settings)


def segmentation_loss(
    logits: Tensor,
    labels: Tensor,
    loss: Loss,
    *,
    weights: Tensor | None = None,
    annotated: Tensor | None = None,
    members: Tensor | None = None,
    progress: float = 0.0,
) -> Tensor:
    """Returns the loss of structures and background, pooled over the batch: a scalar.

    The classes exclude each other (softmax), except if some samples do not annotate all structures,
    whose background is then unknown, or if structures overlap. Each structure is then separated
    from the background for itself (sigmoid of the difference of their logits), over the samples
    that annotate it.

    Args:
        logits: (B, 1 + S, ...); any spatial axes, or none for voxels (n, 1 + S).
        labels: (B, ...) int64; 0 is the background, `IGNORED` voxels do not count.
        loss: The loss; its values of the structures are averaged.
        weights: (B, ...), the number of voxels that each counts as; None counts all as 1.
        annotated: (B, S), 1 where the structure is annotated in the sample; None: everywhere.
        members: (labels, S), 1 where voxels with the label belong to the structure, if structures
            overlap; None: the label is the number of the structure.
        progress: Fraction of the training that has passed, 0 to 1.

    Returns:
        The loss; 0, with a gradient of 0, if no voxel counts.
    """
    logits = logits.float()
    if not (labels != IGNORED).any():
        return 0 * logits.sum()
    labels, weights = _counted(labels, weights)
    weights = None if weights is None else weights[:, None]
    reference = _masks(labels, logits.shape[1] - 1, members)
    if annotated is not None or members is not None:
        chosen = reference.new_ones(reference.shape[:2]) if annotated is None else annotated
        odds = logits[:, 1:] - logits[:, :1]
        losses = masked_losses(
            odds, reference, chosen, loss, weights=weights, pooled=True, progress=progress
        )
        return losses.sum() / chosen.any(0).sum().clamp_min(1)
    predictions = Predictions(logits, reference, labels, weights, pooled=True, progress=progress)
    return loss(predictions).mean()


def _masks(labels: Tensor, structures: int, members: Tensor | None) -> Tensor:
    """Returns a mask of each structure, (B, S, ...), by the arguments of `segmentation_loss`."""
    if members is None:
        return structure_masks(labels, structures)
    return members.float()[labels].movedim(-1, 1)


def _counted(labels: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Returns labels and weights in which `IGNORED` voxels are background of weight 0."""
    counts = labels != IGNORED
    if counts.all():
        return labels, weights
    return labels * counts, counts * (1 if weights is None else weights)


def masked_losses(
    logits: Tensor,
    reference: Tensor,
    annotated: Tensor,
    loss: Loss,
    *,
    weights: Tensor | None = None,
    pooled: bool = False,
    progress: float = 0.0,
) -> Tensor:
    """Returns the loss of each case, summed over the structures that are annotated in it, (B,).

    The sum over cases, divided by the number of annotated pairs of case and structure, is the
    masked mean of FSEFT (Silva-Rodríguez et al. 2025). Sums can be added over ranks.

    Args:
        logits: (B, S, ...).
        reference: (B, S, ...), 1 inside the structure, else 0.
        annotated: (B, S), 1 where the structure is annotated in the case, else 0.
        loss: The loss; the structures are independent.
        weights: (B, 1, ...), the number of voxels that each counts as; None counts all as 1.
        pooled: Score the voxels of all cases together; returns (1,).
        progress: Fraction of the training that has passed, 0 to 1.
    """
    if pooled:
        mask = annotated.view(*annotated.shape, *[1] * (logits.ndim - 2))
        weights = mask if weights is None else mask * weights
        annotated = annotated.any(0)[None]
    predictions = Predictions(
        logits.float(), reference, None, weights, pooled=pooled, progress=progress
    )
    return (loss(predictions) * annotated).sum(1)


def _inverse_root(frequencies: Tensor) -> Tensor:
    """Returns 1 / sqrt(frequency); finite for a class without voxels."""
    return frequencies.clamp_min(1e-6).rsqrt()


def structure_masks(labels: Tensor, count: int) -> Tensor:
    """Returns a float32 mask for each structure 1 to `count`.

    Unlike `torch.nn.functional.one_hot`, which takes eight bytes for each voxel and class.

    Args:
        labels: (B, ...), integers; 0 background, 1.. structures.
        count: Number of structures.

    Returns:
        (B, count, ...), 1 inside the structure, else 0.
    """
    structures = torch.arange(1, count + 1, device=labels.device)
    spatial_ones = [1] * (labels.ndim - 1)
    inside = labels[:, None] == structures.view(1, -1, *spatial_ones)
    return inside.float()
