"""Trains an adapter on crops of the training cases, or on cached features of a frozen network."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from einops import rearrange

from fseft.adaptation.feature_cache import feature_crops
from fseft.adaptation.support_crops import SupportCrops, crop_source
from fseft.errors import FseftError, PluginError
from fseft.learn.adapters.adapted_network import head_names
from fseft.learn.networks.heads import initialise_to_frequencies, receptive_field_radius
from fseft.learn.training.losses import load_loss, segmentation_loss
from fseft.learn.training.memory_estimate import report_out_of_memory
from fseft.learn.training.memory_format import to_device
from fseft.learn.training.prefetch import BatchPrefetcher, derived_seed
from fseft.learn.training.voxel_features import concatenate, sample_voxels, voxel_logits
from fseft.learn.training_loop import Training, autocast, make_training_state, train

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from typing import TypeGuard

    import numpy.typing as npt
    from torch import nn

    from fseft.adaptation.configure import AdaptConfig
    from fseft.experiment.callbacks import Callbacks
    from fseft.learn.adapters.adapted_network import AdaptedNetwork
    from fseft.learn.networks.roles import Architecture
    from fseft.learn.sampling.patch_sampler import Crops
    from fseft.learn.training.losses import Loss
    from fseft.learn.training.progress import Epoch
    from fseft.volume.cache import CachedCase
    from fseft.workspace import Workspace

    StepLoss = Callable[[int], torch.Tensor]
    Window = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], list[slice]]

SOLVED = "the solver"
VOXELS_PER_CROP, VOXELS_PER_STEP = 20_000, 32_768
LOSS = "dice_wce"
FORMER_LOSS = "dice"
"""Default loss of runs whose checkpoint does not name it."""
LOSS_ON_VOXELS = "dice"
LOSS_ON_WINDOWS = "dice_ce"
"""Few windows contain a structure: with Dice alone, everything ends as background."""
WINDOW = 24
"""Voxels along each axis of the part of a feature crop on which the loss is computed."""


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

    Raises:
        FseftError: The loss is not finite, or the memory is too small.
    """
    started = time.monotonic()
    to_device(adapted.network, config.plan.device)
    adapted.train()
    crops_of = SupportCrops.of(config, cached)
    loss = _loss_name(config, architecture, adapted.network, state)
    training = _start_or_resume(config, architecture, adapted, crops_of, loss, state)
    losses = _step_losses(architecture, training, crops_of, loss, workspace, callbacks)

    def on_epoch(epoch: Epoch) -> None:
        if not config.request.method.caches_features:
            _validate(config, adapted, cached, epoch)
        callbacks.on_epoch_end(epoch)

    remedy = "Lower the memory of the plan, or free some."
    with losses as step_loss, report_out_of_memory("a training step", remedy):
        if state is None:  # the extraction of features is part of the time budget
            training.seconds = time.monotonic() - started
        train(
            training,
            step_loss,
            config.training,
            steps_per_epoch=len(cached),
            minutes=config.request.minutes,
            min_steps=len(cached),
            on_step=callbacks.on_step,
            on_epoch=on_epoch,
            save=lambda state: save({**state, "loss": loss}),
        )
    adapted.finish()
    return training


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
        adapted.calibrate(_image_batches(crops_of, config.plan.device))
    training = make_training_state(adapted, config.training)
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
        return LOSS_ON_VOXELS if _is_pointwise(_head(architecture, network)) else LOSS_ON_WINDOWS
    return LOSS if state is None else str(state.get("loss", FORMER_LOSS))


def _head(architecture: Architecture, network: nn.Module) -> nn.Module:
    return network.get_submodule(head_names(architecture, network)[0])


def _is_pointwise(head: nn.Module) -> TypeGuard[nn.Conv3d]:
    return isinstance(head, torch.nn.Conv3d) and set(head.kernel_size) == {1}


def _step_losses(
    architecture: Architecture,
    training: Training,
    crops_of: SupportCrops,
    name: str,
    workspace: Workspace,
    callbacks: Callbacks,
) -> AbstractContextManager[StepLoss]:
    """Returns a context with the loss of a step by its number, on crops or on cached features."""
    config = crops_of.config
    loss = load_loss(name, config.training.component_settings("loss"))
    if config.request.method.caches_features:
        return _feature_losses(architecture, training, crops_of, loss, workspace, callbacks)
    return _crop_losses(config, training, crops_of, loss)


# --- on crops -----------------------------------------------------------------------------------


@contextmanager
def _crop_losses(
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
            with autocast(config.plan.device, config.training.precision):
                logits = adapted.network(images)
            return segmentation_loss(logits, labels, loss, progress=training.progress)

        yield step_loss


def _initialise_new_rows(
    config: AdaptConfig, architecture: Architecture, network: nn.Module, cached: list[CachedCase]
) -> None:
    """Starts the rows of the head that no class of the model matches at the class frequencies."""
    source = crop_source(config, foreground=config.training.foreground_fraction)
    rng = np.random.default_rng(derived_seed(config.request.seed, "frequencies"))
    labels = source.draw(cached, len(cached), rng).labels.ravel()
    counts = np.bincount(labels, minlength=1 + len(config.labels))
    frequencies = counts / counts.sum()
    new = [row for row, name in enumerate(config.labels, start=1) if name not in config.matched]
    head = _head(architecture, network)
    initialise_to_frequencies(head, new, frequencies.tolist())


def _tensors(config: AdaptConfig, crops: Crops) -> tuple[torch.Tensor, torch.Tensor]:
    """Moves images (B, C, i, j, k) and labels (B, i, j, k) to the device."""
    device = config.plan.device
    labels = rearrange(crops.labels, "b 1 i j k -> b i j k").astype(np.int64)
    return torch.from_numpy(crops.images).to(device), torch.from_numpy(labels).to(device)


def _image_batches(crops_of: SupportCrops, device: str) -> Iterator[torch.Tensor]:
    """Yields images (B, C, i, j, k) without end, for methods that calibrate on data."""
    for step in count():
        yield torch.from_numpy(crops_of.draw(step).images).to(device)


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


def _validate(
    config: AdaptConfig, adapted: AdaptedNetwork, cached: list[CachedCase], epoch: Epoch
) -> None:
    """Lets the method evaluate the network on labelled crops that no step draws."""
    source = crop_source(config, foreground=1.0)

    def crops_of(case: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        seed = derived_seed(config.request.seed, "audit", epoch.number, case)
        rng = np.random.default_rng(seed)
        crops = source.draw([cached[case]], count, rng)
        return _tensors(config, crops)

    adapted.network.eval()
    with torch.no_grad(), autocast(config.plan.device, config.training.precision):
        adapted.on_epoch_validation(epoch, len(cached), crops_of)
    adapted.train()


# --- on cached features -------------------------------------------------------------------------


@contextmanager
def _feature_losses(
    architecture: Architecture,
    training: Training,
    crops_of: SupportCrops,
    loss: Loss,
    workspace: Workspace,
    callbacks: Callbacks,
) -> Iterator[StepLoss]:
    """Yields the loss of a step on cached features: on voxels for a pointwise head, or windows."""
    config, network = crops_of.config, training.adapted.network
    features = feature_crops(config, architecture, network, crops_of.draw, workspace, callbacks)
    head = _head(architecture, network)
    with features as crops:
        if _is_pointwise(head):
            yield _voxel_loss(config, training, crops, head, loss)
            return
        with _window_loss(config, training, crops, head, loss) as step_loss:
            yield step_loss


def _voxel_loss(
    config: AdaptConfig,
    training: Training,
    crops: list[CachedCase],
    head: nn.Conv3d,
    loss: Loss,
) -> StepLoss:
    """Returns the loss on batches of voxels; a method with a solver is fitted to all voxels."""
    seed = config.request.seed
    rng = np.random.default_rng(derived_seed(seed, "voxels"))
    samples = [
        sample_voxels(
            crop.read_image((0, 0, 0), crop.shape),
            crop.read_label((0, 0, 0), crop.shape),
            VOXELS_PER_CROP,
            rng,
        )
        for crop in crops
    ]
    voxels = concatenate(samples).to(config.plan.device)
    solver_loss = training.adapted.fit_closed_form(voxels)
    if solver_loss is not None:
        if not math.isfinite(solver_loss):
            cause = f"the solver ended at a loss of {solver_loss}"
            raise FseftError(cause, hint="Use another solver.")
        training.losses, training.stopped_by = [solver_loss], SOLVED

    def step_loss(step: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(derived_seed(seed, "batches", step))
        batch = voxels.batch(VOXELS_PER_STEP, generator)
        logits = voxel_logits(head, batch.features)
        return segmentation_loss(
            logits, batch.labels, loss, weights=batch.weights, progress=training.progress
        )

    return step_loss


@contextmanager
def _window_loss(
    config: AdaptConfig,
    training: Training,
    crops: list[CachedCase],
    head: nn.Module,
    loss: Loss,
) -> Iterator[StepLoss]:
    """Yields the loss on windows of feature crops, which a thread reads in advance."""
    margin, device = receptive_field_radius(head), config.plan.device
    with BatchPrefetcher(lambda step: _windows(config, crops, step, margin)) as prefetcher:

        def step_loss(step: int) -> torch.Tensor:
            torch.manual_seed(derived_seed(config.request.seed, "dropout", step))
            features, labels, insides = prefetcher.batch(step)
            # On a CPU, channels-last makes the gradient of a narrow convolution three times faster.
            windows = torch.from_numpy(features).to(device, memory_format=torch.channels_last_3d)
            with autocast(device, config.training.precision):
                logits = head(windows)
            inner = [
                window[(slice(None), *inside)]
                for window, inside in zip(logits, insides, strict=True)
            ]
            reference = torch.from_numpy(labels).to(device)
            return segmentation_loss(
                torch.stack(inner), reference, loss, progress=training.progress
            )

        yield step_loss


def _windows(
    config: AdaptConfig, crops: list[CachedCase], step: int, margin: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], list[list[slice]]]:
    """Reads windows of random feature crops, half of them around a voxel of a structure.

    Args:
        config: The resolved configuration.
        crops: Feature crops with their labels.
        step: Number of the step; seeds everything random.
        margin: Receptive field radius of the head, in voxels: features are read that far around a
            window, as far as the crop extends.

    Returns:
        Features (n, F, i, j, k), labels (n, i, j, k) of the windows without margin, and the slices
        of each window within its features.
    """
    rng = np.random.default_rng(derived_seed(config.request.seed, "windows", step))
    windows = [
        _window(crops[chosen], margin, rng, around_structure=index % 2 == 0)
        for index, chosen in enumerate(rng.integers(len(crops), size=config.crops_per_step))
    ]
    features, labels, insides = zip(*windows, strict=True)
    return np.stack(features), np.stack(labels), list(insides)


def _window(
    crop: CachedCase, margin: int, rng: np.random.Generator, *, around_structure: bool
) -> Window:
    """Reads one window of a feature crop at a random position."""
    shape = np.asarray(crop.shape)
    size = np.minimum(WINDOW, shape)
    padded_size = np.minimum(WINDOW + 2 * margin, shape)
    corner = rng.integers(shape - size + 1)
    if around_structure and crop.classes:
        places = crop.locations(int(rng.choice(crop.classes)))
        place = places[rng.integers(len(places))]
        corner = np.clip(place - size // 2, 0, shape - size)
    start = np.clip(corner - margin, 0, shape - padded_size)
    features = crop.read_image(tuple(start), tuple(padded_size)).astype(np.float32)
    labels = crop.read_label(tuple(corner), tuple(size)).astype(np.int64)
    first = corner - start
    return features, labels, [*map(slice, first, first + size)]
