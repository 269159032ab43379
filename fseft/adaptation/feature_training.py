"""The loss of a training step on cached features of a frozen network."""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from fseft.adaptation.crop_training import overlapping_members
from fseft.adaptation.feature_cache import ANNOTATED, feature_crops
from fseft.errors import FseftError
from fseft.learn.adapters.adapted_network import head_names
from fseft.learn.networks.heads import receptive_field_radius
from fseft.learn.training.losses import segmentation_loss
from fseft.learn.training.prefetch import BatchPrefetcher, derived_seed
from fseft.learn.training.voxel_features import concatenate, sample_voxels, voxel_logits
from fseft.learn.training_loop import Training, autocast
from fseft.volume.label_values import as_numbers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeGuard

    import numpy.typing as npt
    from torch import nn

    from fseft.adaptation.request import AdaptConfig
    from fseft.adaptation.support_crops import SupportCrops
    from fseft.experiment.callbacks import Callbacks
    from fseft.learn.networks.roles import Architecture
    from fseft.learn.training.losses import Loss
    from fseft.learn.training.voxel_features import VoxelSample
    from fseft.volume.cache import CachedCase
    from fseft.workspace import Workspace

    StepLoss = Callable[[int], torch.Tensor]
    Window = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], list[slice]]

SOLVED = "the solver"
VOXELS_PER_CROP, VOXELS_PER_STEP = 20_000, 32_768
WINDOW = 24
"""Voxels along each axis of the part of a feature crop on which the loss is computed."""


def output_head(architecture: Architecture, network: nn.Module) -> nn.Module:
    """Returns the layer of a network that computes the logits."""
    return network.get_submodule(head_names(architecture, network)[0])


def is_pointwise(head: nn.Module) -> TypeGuard[nn.Conv3d]:
    """Returns whether a head computes the logits of a voxel from its features alone."""
    return isinstance(head, torch.nn.Conv3d) and set(head.kernel_size) == {1}


@contextmanager
def feature_losses(
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
    head = output_head(architecture, network)
    with features as crops:
        if is_pointwise(head):
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
    samples = [_sample(crop, rng) for crop in crops]
    on_device = concatenate(samples).to(config.plan.device)
    voxels = replace(on_device, members=overlapping_members(config))
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
            logits,
            batch.labels,
            loss,
            weights=batch.weights,
            annotated=batch.annotated,
            members=batch.members,
            progress=training.progress,
        )

    return step_loss


def _sample(crop: CachedCase, rng: np.random.Generator) -> VoxelSample:
    """Samples voxels of a crop of features."""
    origin = (0, 0, 0)
    features = crop.read_image(origin, crop.shape)
    labels = crop.read_label(origin, crop.shape)
    return sample_voxels(features, labels, VOXELS_PER_CROP, rng, crop.meta.get(ANNOTATED))


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
            features, labels, insides, annotated = prefetcher.batch(step)
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
                torch.stack(inner),
                reference,
                loss,
                annotated=torch.tensor(annotated, device=device) if annotated else None,
                members=overlapping_members(config),
                progress=training.progress,
            )

        yield step_loss


def _windows(
    config: AdaptConfig, crops: list[CachedCase], step: int, margin: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], list[list[slice]], list[list[float]]]:
    """Reads windows of random feature crops, half of them around a voxel of a structure.

    Args:
        config: The resolved configuration.
        crops: Feature crops with their labels.
        step: Number of the step; seeds everything random.
        margin: Receptive field radius of the head, in voxels: features are read that far around a
            window, as far as the crop extends.

    Returns:
        Features (n, F, i, j, k), labels (n, i, j, k) of the windows without margin, the slices of
        each window within its features, and 1 for each structure that is annotated in it, else 0;
        empty if all are.
    """
    rng = np.random.default_rng(derived_seed(config.request.seed, "windows", step))
    chosen = [crops[index] for index in rng.integers(len(crops), size=config.crops_per_step)]
    windows = [
        _window(crop, margin, rng, around_structure=index % 2 == 0)
        for index, crop in enumerate(chosen)
    ]
    features, labels, insides = zip(*windows, strict=True)
    annotated = [crop.meta[ANNOTATED] for crop in chosen if ANNOTATED in crop.meta]
    return np.stack(features), np.stack(labels), list(insides), annotated


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
    labels = as_numbers(crop.read_label(tuple(corner), tuple(size)))
    first = corner - start
    return features, labels, [*map(slice, first, first + size)]
