"""The loss of a training step on crops of the training cases."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
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

    from fseft.adaptation.request import AdaptConfig
    from fseft.learn.adapters.adapted_network import AdaptedNetwork
    from fseft.learn.sampling.patch_sampler import Crops
    from fseft.learn.training.losses import Loss
    from fseft.learn.training.progress import Epoch
    from fseft.volume.cache import CachedCase

    StepLoss = Callable[[int], torch.Tensor]


@contextmanager
def crop_losses(
    config: AdaptConfig, training: Training, crops_of: SupportCrops, loss: Loss
) -> Iterator[StepLoss]:
    """Yields the loss of a step by its number, on crops that a thread draws in advance."""
    cases, adapted = len(crops_of.cached), training.adapted

    def request(*step_and_held_out: Any) -> tuple[Any, ...]:
        return step_and_held_out

    with BatchPrefetcher(lambda batch: crops_of.draw(*batch), request) as prefetcher:

        def step_loss(step: int) -> torch.Tensor:
            held_out = _held_out(adapted, 1 + step // cases, cases)
            crops = prefetcher.batch(step, held_out)
            torch.manual_seed(derived_seed(config.request.seed, "dropout", step))
            images, labels = _tensors(config, crops)
            annotated = _annotated(config, crops)
            with autocast(config.plan.device, config.training.precision):
                logits = adapted.network(images)
            if step % running_dice.INTERVAL == 0 and not config.regions:
                training.dice.update(logits.detach(), labels, annotated)
            return segmentation_loss(
                logits,
                labels,
                loss,
                annotated=annotated,
                members=overlapping_members(config),
                progress=training.progress,
            )

        yield step_loss


def overlapping_members(config: AdaptConfig) -> torch.Tensor | None:
    """Returns the `members` of `segmentation_loss`; None if structures do not overlap."""
    return torch.from_numpy(config.members).to(config.plan.device) if config.regions else None


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
