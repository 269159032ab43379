"""Signs that a training failed: weights that diverged, and structures that were not learned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from fseft.adaptation.support_crops import crop_source
from fseft.errors import FseftError
from fseft.learn.sampling.covering_crops import covering_crops
from fseft.learn.training.prefetch import derived_seed
from fseft.learn.training_loop import autocast
from fseft.volume.label_values import IGNORED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fseft.adaptation.request import AdaptConfig
    from fseft.learn.adapters.adapted_network import AdaptedNetwork
    from fseft.schemas import Run
    from fseft.volume.cache import Array, CachedCase

MAX_WEIGHT = 1e6
"""Absolute value of a trained parameter from which a training counts as diverged."""
LEARNED_DICE = 0.05
"""Dice on training crops below which a structure counts as not learned."""
MIN_EPOCHS = 20
"""Epochs from which a training that learned no structure counts as diverged."""
SCORED_CROPS = 16
"""Crops of `training_dice`; more only where they do not show every structure."""


def largest_weight(adapted: AdaptedNetwork) -> float:
    """Returns the largest absolute value of the trained parameters.

    Raises:
        FseftError: A parameter is not finite.
    """
    largest = 0.0
    for name, parameter in adapted.trainable_parameters():
        values = parameter.detach()
        if not torch.isfinite(values).all():
            cause = f"the training ended with values of {name} that are not finite"
            raise FseftError(cause, hint="Lower the learning rate and run again.")
        largest = max(largest, float(values.abs().max())) if values.numel() else largest
    return largest


@torch.no_grad()
def training_dice(
    config: AdaptConfig, adapted: AdaptedNetwork, cached: Sequence[CachedCase]
) -> dict[str, float]:
    """Computes the Dice of each structure on crops of the training cases, without augmentation.

    Args:
        config: The resolved configuration.
        adapted: The trained network.
        cached: The preprocessed training cases.

    Returns:
        Structure -> Dice over all crops, for all structures that a training case shows.
    """
    adapted.network.eval()
    counts = np.zeros((3, len(config.labels)), np.int64)
    for image, label, annotation in _crops(config, cached):
        with autocast(config.plan.device, config.training.precision):
            logits = adapted.network(torch.from_numpy(image[None]).to(config.plan.device))
        counts += _annotated_voxels(config, logits[0].float().cpu().numpy(), label[0], annotation)
    overlap, predicted_size, size = counts
    dice = 2 * overlap / np.maximum(predicted_size + size, 1)
    scores = zip(config.labels, dice.tolist(), size, strict=True)
    return {name: round(score, 4) for name, score, voxels in scores if voxels}


def _annotated_voxels(
    config: AdaptConfig, logits: Array, label: Array, annotation: Array | None
) -> Array:
    """Counts the voxels of each structure, as `_voxels`, of a crop where it is annotated."""
    annotated = label != IGNORED
    scores, reference = logits[:, annotated], label[annotated]
    if config.regions:
        voxels = _region_voxels(scores[1:] > scores[0], config.members[reference].T > 0)
    else:
        voxels = _voxels(scores.argmax(0), reference, len(config.labels))
    return voxels if annotation is None else voxels * annotation[0].astype(np.int64)


def _voxels(predicted: Array, reference: Array, structures: int) -> Array:
    """Counts the voxels of each structure (3, structures): in both label maps, in either one."""
    both = predicted[predicted == reference]
    counts = [
        np.bincount(labels.ravel(), minlength=structures + 1)
        for labels in (both, predicted, reference)
    ]
    return np.stack(counts)[:, 1:]


def _region_voxels(predicted: Array, reference: Array) -> Array:
    """Counts the voxels of each structure, as `_voxels`, of masks (structures, voxels)."""
    masks = (predicted & reference, predicted, reference)
    return np.stack([np.count_nonzero(mask, axis=1) for mask in masks])


def _crops(
    config: AdaptConfig, cached: Sequence[CachedCase]
) -> Iterator[tuple[Array, Array, Array | None]]:
    """Yields crops that show every structure, and more of each structure and case in turn."""
    source = crop_source(config, foreground=1.0)
    rng = np.random.default_rng(derived_seed(config.request.seed, "training-dice"))
    crops = covering_crops(source, cached, rng)
    structures = len(config.voxel_values)
    for number in range(min(SCORED_CROPS, 2 * structures) - len(crops)):
        case = cached[(number + number // structures) % len(cached)]
        structure = 1 + number % structures
        crops.append((case, source.start_near(case, structure, rng)))
    for case, start in crops:
        yield *source.read(case, start), source.annotation([case])


def has_diverged(largest: float, epochs: int, dice: Sequence[float]) -> bool:
    """Returns whether a training led nowhere.

    Args:
        largest: Largest absolute value of the trained parameters.
        epochs: Number of epochs.
        dice: Dice of each structure on training crops.

    Examples:
        >>> has_diverged(1e30, 1, [0.0]), has_diverged(2.0, 20, [0.0, 0.01])
        (True, True)
        >>> has_diverged(2.0, 1, [0.0]), has_diverged(2.0, 20, [0.0, 0.5])
        (False, False)
    """
    if largest > MAX_WEIGHT:
        return True
    if epochs < MIN_EPOCHS or not dice:
        return False
    return max(dice) < LEARNED_DICE


def outcome_warnings(run: Run) -> list[str]:
    """Describes what went wrong in a finished run."""
    if run.diverged:
        loss = f"loss {run.final_loss:.4f}" if run.final_loss is not None else "no loss"
        remedy = "lower the learning rate, and overwrite the run"
        return [f"the training diverged ({loss}), and its adapter is of no use; {remedy}"]
    missed = [name for name, dice in run.training_dice.items() if dice < LEARNED_DICE]
    if not missed:
        return []
    listed = ", ".join(f"{name} ({run.training_dice[name]:.2f})" for name in missed)
    remedy = "train longer, or check the labels"
    return [f"not learned: {listed}, by the Dice on crops of the training cases; {remedy}"]
