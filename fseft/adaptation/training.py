"""The training of `fseft adapt`: on crops of the support cases, or on features kept from one frozen pass."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from einops import rearrange

from fseft.adaptation.configure import uses_cached_features
from fseft.adaptation.feature_cache import feature_crops
from fseft.errors import FseftError, PluginError
from fseft.learn.adapters.adapted_network import head_names
from fseft.learn.networks.heads import receptive_field_radius
from fseft.learn.sampling.augmentation import load_augmentations
from fseft.learn.sampling.patch_sampler import Crops, CropSource
from fseft.learn.training.losses import load_loss, segmentation_loss
from fseft.learn.training.memory_estimate import report_out_of_memory
from fseft.learn.training.memory_format import to_device
from fseft.learn.training.prefetch import BatchPrefetcher, derived_seed
from fseft.learn.training.voxel_features import concatenate, sample_voxels, voxel_logits
from fseft.learn.training_loop import Training, autocast, make_training_state, train

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    import numpy.typing as npt

    from fseft.adaptation.configure import AdaptConfig, Listener
    from fseft.learn.adapters.adapted_network import AdaptedNetwork
    from fseft.learn.networks.roles import Architecture
    from fseft.learn.training.progress import Epoch
    from fseft.learn.training.voxel_features import VoxelSample
    from fseft.schemas import Triple
    from fseft.volume.cache import CachedCase
    from fseft.workspace import Workspace

SOLVED = "the solver"
VOXELS_PER_CROP, VOXELS_PER_STEP = 20_000, 32_768
LOSS = "dice"
LOSS_ON_WINDOWS = (
    "dice_ce"  # most structures are in few windows: Dice alone then ends with background everywhere
)
WINDOW = 24  # voxels along each axis of what the loss sees at a time, of a crop's features


def train_adapter(
    job: AdaptConfig,
    architecture: Architecture,
    adapted: AdaptedNetwork,
    cached: list[CachedCase],
    store: Workspace,
    listener: Listener,
    *,
    state: dict[str, Any] | None,
    on_epoch: Callable[[Epoch], None],
    save: Callable[[dict[str, Any]], None],
) -> Training:
    """Train what a method has put into a network.

    Args:
        job: What was decided.
        architecture: Of the network.
        adapted: The network and what of it is trained.
        cached: The support cases.
        store: Says where features are kept.
        listener: Told how far the pass for features and the training are.
        state: Of a training that was cut off, if there is one.
        on_epoch: Told after each epoch.
        save: Given a state now and then.

    Raises:
        FseftError: The loss is no number, or the memory is too small.
    """
    began = time.monotonic()
    to_device(adapted.network, job.plan.device)
    adapted.train()
    if state is None:
        adapted.calibrate(_images(job, cached))
    training = make_training_state(adapted, job.recipe)
    if state:
        training.restore(state)
    kept = uses_cached_features(job.spec, job.beside, job.recipe)
    if kept:
        losses = _on_features(job, architecture, training, cached, store, listener)
    else:
        losses = _fresh(job, adapted, cached)

    def after(epoch: Epoch) -> None:
        if not kept:
            _audit(job, adapted, cached, epoch)
        on_epoch(epoch)

    with (
        losses as loss_of,
        report_out_of_memory("a training step", "Give a smaller --memory, or free some."),
    ):
        if state is None:
            training.seconds = (
                time.monotonic() - began
            )  # the pass for the features is part of the time budget
        train(
            training,
            loss_of,
            job.recipe,
            steps_per_epoch=len(cached),
            minutes=job.request.minutes,
            on_step=listener.step,
            on_epoch=after,
            save=save,
        )
    adapted.finish()
    return training


@contextmanager
def _fresh(
    job: AdaptConfig, adapted: AdaptedNetwork, cached: list[CachedCase]
) -> Iterator[Callable[[int], torch.Tensor]]:
    """The loss of each step on crops of its own."""
    cases = len(cached)
    with BatchPrefetcher(lambda asked: draw(job, cached, *asked), lambda *asked: asked) as ahead:

        def loss_of(step: int) -> torch.Tensor:
            held_out = _held_out(adapted, 1 + step // cases, cases)
            return _loss(job, adapted, ahead.batch(step, held_out), step)

        yield loss_of


def _held_out(adapted: AdaptedNetwork, epoch: int, cases: int) -> frozenset[int]:
    """Support cases that the steps of an epoch leave alone."""
    held_out = frozenset(adapted.held_out_cases(epoch, cases))
    if held_out - set(range(cases)):
        raise PluginError(
            f"held_out_cases() returned {sorted(held_out)}, but the support cases are 0 to {cases - 1}"
        )
    if len(held_out) == cases:
        raise PluginError(
            "held_out_cases() returned all support cases, which leaves none to train on"
        )
    return held_out


def _audit(
    job: AdaptConfig, adapted: AdaptedNetwork, cached: list[CachedCase], epoch: Epoch
) -> None:
    """Let the method look at labelled crops that no step draws."""
    source = _source(job, job.plan.preprocessing.patch_size, foreground=1.0)

    def crops_of(case: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng(derived_seed(job.request.seed, "audit", epoch.number, case))
        return _tensors(job, source.draw(cached[case], count, rng))

    adapted.network.eval()
    with torch.no_grad(), autocast(job.plan.device, job.recipe.precision):
        adapted.on_epoch_validation(epoch, len(cached), crops_of)
    adapted.train()


@contextmanager
def _on_features(
    job: AdaptConfig,
    architecture: Architecture,
    training: Training,
    cached: list[CachedCase],
    store: Workspace,
    listener: Listener,
) -> Iterator[Callable[[int], torch.Tensor]]:
    """The loss of each step on features that are there: on voxels for a pointwise head, else on windows of crops."""
    adapted = training.adapted
    network = adapted.network
    crops = feature_crops(
        job, architecture, network, lambda step: draw(job, cached, step), store, listener
    )
    head = network.get_submodule(head_names(architecture, network)[0])
    seed, device = job.request.seed, job.plan.device
    if isinstance(head, torch.nn.Conv3d) and set(head.kernel_size) == {1}:
        rng = np.random.default_rng(derived_seed(seed, "voxels"))
        voxels = concatenate([_sampled(crop, rng) for crop in crops]).to(device)
        solved = adapted.fit_closed_form(voxels)
        if solved is not None and not math.isfinite(solved):
            raise FseftError(
                f"the solver ended at a loss of {solved}", hint="Use another --set solver."
            )
        if solved is not None:
            training.losses, training.stopped_by = [solved], SOLVED

        loss = load_loss(job.recipe.loss or LOSS)

        def on_some_voxels(step: int) -> torch.Tensor:
            generator = torch.Generator().manual_seed(derived_seed(seed, "batches", step))
            some = voxels.batch(VOXELS_PER_STEP, generator)
            logits = voxel_logits(head, some.features)
            return segmentation_loss(logits, some.labels, loss, weights=some.weights)

        yield on_some_voxels
        return
    loss_on_windows = load_loss(job.recipe.loss or LOSS_ON_WINDOWS)
    with BatchPrefetcher(
        lambda step: _windows(job, crops, step, receptive_field_radius(head))
    ) as ahead:

        def on_windows(step: int) -> torch.Tensor:
            torch.manual_seed(derived_seed(seed, "dropout", step))
            features, labels, insides = ahead.batch(step)
            # Channels last: a CPU finds the gradient of a narrow convolution three times faster.
            windows = torch.from_numpy(features).to(device, memory_format=torch.channels_last_3d)
            with autocast(device, job.recipe.precision):
                logits = head(windows)
            counted = torch.stack(
                [one[:, i, j, k] for one, (i, j, k) in zip(logits, insides, strict=True)]
            )
            return segmentation_loss(counted, torch.from_numpy(labels).to(device), loss_on_windows)

        yield on_windows


def _sampled(crop: CachedCase, rng: np.random.Generator) -> VoxelSample:
    origin, size = (0, 0, 0), crop.shape
    return sample_voxels(
        crop.read_image(origin, size), crop.read_label(origin, size), VOXELS_PER_CROP, rng
    )


def _windows(
    job: AdaptConfig, crops: list[CachedCase], step: int, around: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], list[list[slice]]]:
    """Of as many crops as a step has, half of them around a voxel of a structure where there is one.

    Args:
        job: The work.
        crops: Features and labels.
        step: Decides which.
        around: How many voxels away the head looks: so much more of the features is read, as far as the crop goes.

    Returns:
        Features (n, F, i, j, k), labels (n, i, j, k) of a part of them, and where that part lies in each.
    """
    rng = np.random.default_rng(derived_seed(job.request.seed, "windows", step))
    features, labels, insides = [], [], []
    for index, chosen in enumerate(rng.integers(len(crops), size=job.crops)):
        crop = crops[chosen]
        size, whole = np.minimum(WINDOW, crop.shape), np.minimum(WINDOW + 2 * around, crop.shape)
        slack = np.subtract(crop.shape, size)
        corner = rng.integers(slack + 1)
        if index % 2 == 0 and crop.classes:
            places = crop.locations(int(rng.choice(crop.classes)))
            corner = np.clip(places[rng.integers(len(places))] - size // 2, 0, slack)
        start = np.clip(corner - around, 0, np.subtract(crop.shape, whole))
        features.append(crop.read_image(tuple(start), tuple(whole)).astype(np.float32))
        labels.append(crop.read_label(tuple(corner), tuple(size)).astype(np.int64))
        insides.append([*map(slice, corner - start, corner - start + size)])
    return np.stack(features), np.stack(labels), insides


def _images(job: AdaptConfig, cached: list[CachedCase]) -> Iterator[torch.Tensor]:
    """Batches without labels, for methods whose start depends on the data."""
    for step in count():
        yield torch.from_numpy(draw(job, cached, step).images).to(job.plan.device)


def draw(
    job: AdaptConfig, cached: list[CachedCase], step: int, held_out: Collection[int] = ()
) -> Crops:
    """Crops of one support case for a step.

    Each case comes once per epoch, in an order of its own; where some are held out, the others come again.
    """
    epoch, position = divmod(step, len(cached))
    seed = job.request.seed
    order = np.random.default_rng(derived_seed(seed, "order", epoch)).permutation(len(cached))
    drawn = [case for case in order if case not in held_out]
    patch = job.plan.preprocessing.patch_size
    augmentations = load_augmentations(
        job.recipe.augment, mirror_axes=(0, 1, 2) if job.recipe.mirror else ()
    )
    margin = augmentations.margin(patch)
    source = _source(job, patch, foreground=job.recipe.foreground_fraction, margin=margin)
    rng = np.random.default_rng(derived_seed(seed, "crops", step))
    crops = source.draw(cached[drawn[position % len(drawn)]], job.crops, rng)
    return augmentations.augment(crops, patch, derived_seed(seed, "augmentation", step))


def _source(
    job: AdaptConfig, size: Triple, *, foreground: float, margin: Triple = (0, 0, 0)
) -> CropSource:
    how = job.plan.preprocessing
    classes = {value: index for index, value in enumerate(job.labels.values(), start=1)}
    return CropSource(size, how.intensity, how.modality, classes, foreground, margin)


def _loss(job: AdaptConfig, adapted: AdaptedNetwork, crops: Crops, step: int) -> torch.Tensor:
    torch.manual_seed(derived_seed(job.request.seed, "dropout", step))
    images, labels = _tensors(job, crops)
    with autocast(job.plan.device, job.recipe.precision):
        logits = adapted.network(images)
    return segmentation_loss(logits, labels, load_loss(job.recipe.loss or LOSS))


def _tensors(job: AdaptConfig, crops: Crops) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (B, C, i, j, k) and labels (B, i, j, k) on the device."""
    labels = rearrange(crops.labels, "b 1 i j k -> b i j k").astype(np.int64)
    return torch.from_numpy(crops.images).to(job.plan.device), torch.from_numpy(labels).to(
        job.plan.device
    )
