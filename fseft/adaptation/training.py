"""Trains an adapter on crops of the training cases, or on cached features of a frozen network."""

from __future__ import annotations

import logging
import time
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fseft.adaptation.crop_training import crop_losses, validate
from fseft.adaptation.feature_training import feature_losses, is_pointwise, output_head
from fseft.adaptation.mean_teacher import MeanTeacher
from fseft.adaptation.outcome import LEARNED_DICE
from fseft.adaptation.support_crops import SupportCrops, crop_source
from fseft.learn.networks.heads import initialise_to_frequencies
from fseft.learn.sampling.patch_sampler import class_frequencies
from fseft.learn.training.losses import load_loss
from fseft.learn.training.memory_estimate import report_out_of_memory
from fseft.learn.training.memory_format import to_device
from fseft.learn.training.prefetch import derived_seed
from fseft.learn.training.running_dice import RunningDice
from fseft.learn.training_loop import Training, make_training_state, train

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from torch import nn

    from fseft.adaptation.request import AdaptConfig
    from fseft.experiment.callbacks import Callbacks
    from fseft.learn.adapters.adapted_network import AdaptedNetwork
    from fseft.learn.networks.roles import Architecture
    from fseft.learn.training.progress import Epoch
    from fseft.training_config import TrainingConfig
    from fseft.volume.cache import CachedCase
    from fseft.workspace import Workspace

    StepLoss = Callable[[int], torch.Tensor]

logger = logging.getLogger(__name__)

HALF = 0.5
LOSS = "dice_wce"
FORMER_LOSS = "dice"
"""Default loss of runs whose checkpoint does not name it."""
LOSS_ON_VOXELS = "dice"
LOSS_ON_WINDOWS = "dice_ce"
"""Few windows contain a structure: with Dice alone, everything ends as background."""


def train_adapter(
    config: AdaptConfig,
    architecture: Architecture,
    adapted: AdaptedNetwork,
    cached: list[CachedCase],
    workspace: Workspace,
    callbacks: Callbacks,
    *,
    state: dict[str, Any] | None,
    save: Callable[[dict[str, Any]], None],
    unlabelled: Sequence[CachedCase] = (),
) -> Training:
    """Trains the parameters that a method has added to a network or unfrozen in it.

    Args:
        config: The resolved configuration.
        architecture: The architecture of the network.
        adapted: The network with its trainable parameters.
        cached: The preprocessed training cases.
        workspace: Where features are cached.
        callbacks: Observe the extraction of features, the steps and the epochs.
        state: The state of an interrupted training, to resume it.
        save: Called with the state at intervals.
        unlabelled: Preprocessed scans without labels, which the moving average labels.

    Raises:
        FseftError: The loss is not finite, or the memory is too small.
    """
    started = time.monotonic()
    to_device(adapted.network, config.plan.device)
    adapted.train()
    crops_of = SupportCrops.of(config, cached)
    loss = _loss_name(config, architecture, adapted.network, state)
    training = _start_or_resume(config, architecture, adapted, crops_of, loss, state)
    losses = _step_losses(architecture, training, crops_of, loss, unlabelled, workspace, callbacks)

    mention_unlearned = _half_time_message()

    def on_epoch(epoch: Epoch) -> None:
        if not config.request.method.caches_features:
            validate(config, adapted, cached, epoch)
        callbacks.on_epoch_end(epoch)
        mention_unlearned(epoch)

    remedy = "Lower the memory of the plan, or free some."
    with losses as step_loss, report_out_of_memory("a training step", remedy):
        if state is None:  # the extraction of features is part of the time budget
            training.seconds = time.monotonic() - started
        train(
            training,
            step_loss,
            _with_early_stopping(config),
            steps_per_epoch=len(cached),
            minutes=config.request.minutes,
            min_steps=len(cached),
            on_step=callbacks.on_step,
            on_epoch=on_epoch,
            save=lambda state: save({**state, "loss": loss}),
        )
    adapted.finish()
    return training


def _with_early_stopping(config: AdaptConfig) -> TrainingConfig:
    """Decides whether to stop at a plateau of the loss, unless the configuration does.

    On crops, the default loss changes over the training, and a training that stops before its
    learning rate has decreased is worse than a shorter one.
    """
    training = config.training
    if training.early_stopping is not None:
        return training
    return training.model_copy(update={"early_stopping": config.request.method.caches_features})


def _half_time_message() -> Callable[[Epoch], None]:
    """Returns a function that names the structures that are not learned by half of the training."""
    is_due = True

    def on_epoch(epoch: Epoch) -> None:
        nonlocal is_due
        if not is_due or epoch.progress < HALF:
            return
        is_due = False
        missed = [name for name, dice in epoch.dice.items() if dice < LEARNED_DICE]
        if missed:
            logger.info(
                "not learned by half of the training: %s; more minutes or epochs may help",
                ", ".join(missed),
            )

    return on_epoch


def _start_or_resume(
    config: AdaptConfig,
    architecture: Architecture,
    adapted: AdaptedNetwork,
    crops_of: SupportCrops,
    loss: str,
    state: dict[str, Any] | None,
) -> Training:
    """Returns the state of the training: initialised, or as an interrupted one left it."""
    if state is None:
        if loss == LOSS and not config.request.method.caches_features:
            _initialise_new_rows(config, architecture, adapted.network, crops_of.cached)
        if config.request.origin is None:
            adapted.calibrate(_image_batches(crops_of, config.plan.device))
    training = make_training_state(adapted, config.training)
    training.dice = RunningDice(config.labels)
    if state:
        training.restore(state)
    return training


def _loss_name(
    config: AdaptConfig,
    architecture: Architecture,
    network: nn.Module,
    state: dict[str, Any] | None,
) -> str:
    """Returns the loss of the configuration, or the default for what the method trains on.

    On crops, an interrupted training keeps the default that it started with.
    """
    if config.training.loss:
        return config.training.loss
    if config.request.method.caches_features:  # former checkpoints name that on crops
        return (
            LOSS_ON_VOXELS if is_pointwise(output_head(architecture, network)) else LOSS_ON_WINDOWS
        )
    return LOSS if state is None else str(state.get("loss", FORMER_LOSS))


def _step_losses(
    architecture: Architecture,
    training: Training,
    crops_of: SupportCrops,
    name: str,
    unlabelled: Sequence[CachedCase],
    workspace: Workspace,
    callbacks: Callbacks,
) -> AbstractContextManager[StepLoss]:
    """Returns a context with the loss of a step by its number, on crops or on cached features."""
    config = crops_of.config
    loss = load_loss(name, config.training.component_settings("loss"))
    if config.request.method.caches_features:
        return feature_losses(architecture, training, crops_of, loss, workspace, callbacks)
    teacher = MeanTeacher.of(config, training, unlabelled) if unlabelled else None
    return crop_losses(config, training, crops_of, loss, teacher)


def _initialise_new_rows(
    config: AdaptConfig, architecture: Architecture, network: nn.Module, cached: list[CachedCase]
) -> None:
    """Starts the rows of the head that have no trained weights at the class frequencies."""
    source = crop_source(config, foreground=config.training.foreground_fraction)
    rng = np.random.default_rng(derived_seed(config.request.seed, "frequencies"))
    crops = source.draw(cached, len(cached), rng)
    frequencies = class_frequencies(crops, config.members)
    known = config.matched.keys() | config.continued.keys()
    new = [row for row, name in enumerate(config.labels, start=1) if name not in known]
    head = output_head(architecture, network)
    initialise_to_frequencies(head, new, frequencies)


def _image_batches(crops_of: SupportCrops, device: str) -> Iterator[torch.Tensor]:
    """Yields images (B, C, i, j, k) without end, for methods that calibrate on data."""
    for step in count():
        yield torch.from_numpy(crops_of.draw(step).images).to(device)
