"""The loss of a training step on crops of the training cases."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from einops import rearrange

from fseft.adaptation.support_crops import SupportCrops, crop_source
from fseft.errors import IncompatibleError, PluginError
from fseft.learn.adapters.training_hooks import TrainingHooks
from fseft.learn.training import running_dice
from fseft.learn.training.losses import segmentation_loss
from fseft.learn.training.prefetch import BatchPrefetcher, derived_seed
from fseft.learn.training_loop import Training, autocast
from fseft.volume.label_values import IGNORED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fseft.adaptation.mean_teacher import MeanTeacher, UnlabelledCrops
    from fseft.adaptation.request import AdaptConfig
    from fseft.learn.adapters.adapted_network import AdaptedNetwork
    from fseft.learn.sampling.patch_sampler import Crops
    from fseft.learn.training.losses import Loss
    from fseft.learn.training.progress import Epoch
    from fseft.volume.cache import CachedCase

    StepLoss = Callable[[int], torch.Tensor]


@dataclass(frozen=True)
class Batch:
    """The crops of a step, on the device.

    Attributes:
        images: (B, C, i, j, k).
        labels: (B, i, j, k), int64, as in `segmentation_loss`.
        annotated: (B, structures), 1 where a crop counts for a structure; None if all do.
        weights: (B, 1, 1, 1), weight of the voxels of a crop; None counts all as 1.
    """

    images: torch.Tensor
    labels: torch.Tensor
    annotated: torch.Tensor | None = None
    weights: torch.Tensor | None = None


@contextmanager
def crop_losses(
    config: AdaptConfig,
    training: Training,
    crops_of: SupportCrops,
    loss: Loss,
    teacher: MeanTeacher | None = None,
) -> Iterator[StepLoss]:
    """Yields the loss of a step by its number, on crops that a thread draws in advance.

    Crops of scans without labels join the step once the labels of the teacher have a weight.
    """
    with _batches(config, training, crops_of, teacher) as batches:

        def step_loss(step: int) -> torch.Tensor:
            labelled, batch = batches(step)
            torch.manual_seed(derived_seed(config.request.seed, "dropout", step))
            with autocast(config.plan.device, config.training.precision):
                logits = training.adapted.network(batch.images)
            if step % running_dice.INTERVAL == 0 and not config.regions:
                shown = logits.detach()[: len(labelled.labels)]
                training.dice.update(shown, labelled.labels, labelled.annotated)
            return segmentation_loss(
                logits,
                batch.labels,
                loss,
                weights=batch.weights,
                annotated=batch.annotated,
                members=overlapping_members(config),
                progress=training.progress,
            )

        yield step_loss


@contextmanager
def _batches(
    config: AdaptConfig, training: Training, crops_of: SupportCrops, teacher: MeanTeacher | None
) -> Iterator[Callable[[int], tuple[Batch, Batch]]]:
    """Yields a function of a step that returns its labelled crops, and all its crops."""
    cases, adapted = len(crops_of.cached), training.adapted

    def request(*drawn: Any) -> tuple[Any, ...]:
        return drawn

    def draw(drawn: tuple[int, frozenset[int], bool]) -> tuple[Crops, UnlabelledCrops | None]:
        step, held_out, with_teacher = drawn
        unlabelled = teacher.draw(step) if teacher and with_teacher else None
        return crops_of.draw(step, held_out), unlabelled

    with BatchPrefetcher(draw, request) as prefetcher:

        def batches(step: int) -> tuple[Batch, Batch]:
            held_out = _held_out(adapted, 1 + step // cases, cases)
            with_teacher = teacher is not None and teacher.weight > 0
            crops, unlabelled = prefetcher.batch(step, held_out, with_teacher)
            labelled = _batch(config, crops)
            if teacher is None or unlabelled is None:
                return labelled, labelled
            return labelled, teacher.extended(labelled, unlabelled)

        yield batches


def overlapping_members(config: AdaptConfig) -> torch.Tensor | None:
    """Returns the `members` of `segmentation_loss`; None if structures do not overlap."""
    return torch.from_numpy(config.members).to(config.plan.device) if config.regions else None


def _batch(config: AdaptConfig, crops: Crops) -> Batch:
    """Moves the crops of a step to the device."""
    images, labels = _tensors(config, crops)
    return Batch(images, labels, _annotated(config, crops))


def _annotated(config: AdaptConfig, crops: Crops) -> torch.Tensor | None:
    """Moves the annotated structures (B, structures) to the device; None if all are."""
    if crops.annotated is None:
        return None
    return torch.from_numpy(crops.annotated).to(config.plan.device)


def _tensors(config: AdaptConfig, crops: Crops) -> tuple[torch.Tensor, torch.Tensor]:
    """Moves images (B, C, i, j, k) and labels (B, i, j, k) to the device."""
    device = config.plan.device
    labels = rearrange(crops.labels, "b 1 i j k -> b i j k").astype(np.int64)
    return torch.from_numpy(crops.images).to(device), torch.from_numpy(labels).to(device)


def _without_unknown(crops: Crops) -> Crops:
    """Returns crops whose background is `IGNORED` where it may be a structure nobody annotated."""
    if crops.annotated is None:
        return crops
    is_partial = np.asarray(~crops.annotated.all(1))
    is_unknown = (crops.labels == 0) & is_partial.reshape(-1, 1, 1, 1, 1)
    return replace(crops, labels=np.where(is_unknown, IGNORED, crops.labels))


def _held_out(adapted: AdaptedNetwork, epoch: int, cases: int) -> frozenset[int]:
    """Returns the indices of the training cases that the steps of an epoch must not draw from."""
    held_out = frozenset(adapted.held_out_cases(epoch, cases))
    if held_out - set(range(cases)):
        raise PluginError(
            f"held_out_cases() returned {sorted(held_out)}, but the training cases are "
            f"0 to {cases - 1}"
        )
    if len(held_out) == cases:
        raise PluginError(
            "held_out_cases() returned all training cases, which leaves none to train on"
        )
    return held_out


def validate(
    config: AdaptConfig, adapted: AdaptedNetwork, cached: list[CachedCase], epoch: Epoch
) -> None:
    """Lets the method evaluate the network on labelled crops that no step draws."""
    if type(adapted).on_epoch_validation is TrainingHooks.on_epoch_validation:
        return
    if config.regions:
        raise IncompatibleError(
            f"the method {config.request.method.name!r} validates on labels of structures, and "
            "these overlap",
            hint="Use another method, such as lora.",
        )
    source = crop_source(config, foreground=1.0)

    def crops_of(case: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        seed = derived_seed(config.request.seed, "audit", epoch.number, case)
        rng = np.random.default_rng(seed)
        return _tensors(config, _without_unknown(source.draw([cached[case]], count, rng)))

    adapted.network.eval()
    with torch.no_grad(), autocast(config.plan.device, config.training.precision):
        adapted.on_epoch_validation(epoch, len(cached), crops_of)
    adapted.train()
