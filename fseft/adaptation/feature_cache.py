"""Features of a frozen network on crops of the training cases, cached for other methods."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch

from fseft.adaptation.documents import annotation_key
from fseft.learn.training.memory_estimate import report_out_of_memory
from fseft.learn.training_loop import autocast
from fseft.model_zoo.adapter_file import versions
from fseft.registry import registry
from fseft.temporaries import in_use, last_use, remove_leftovers, remove_unused
from fseft.volume.cache import has_case, open_case, write_case
from fseft.volume.label_values import IGNORED, UNANNOTATED
from fseft.workspace import digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from torch import nn

    from fseft.adaptation.request import AdaptConfig
    from fseft.experiment.callbacks import Callbacks
    from fseft.learn.networks.roles import Architecture
    from fseft.learn.sampling.patch_sampler import Crops
    from fseft.volume.cache import Array, CachedCase
    from fseft.workspace import Workspace

logger = logging.getLogger(__name__)

LIMIT_BYTES = 4_000_000_000
"""Size of the features of one adaptation, before compression; further crops are left out."""
KEPT = 5
"""Number of feature sets that are kept of a dataset, or more where processes use them."""
ANNOTATED = "annotated"
"""Key of the annotated structures, 0 or 1 each, in the metadata of a crop."""
_FORMAT = 3  # raised when the same input leads to other features


@contextmanager
def feature_crops(
    config: AdaptConfig,
    architecture: Architecture,
    network: nn.Module,
    draw: Callable[[int], Crops],
    workspace: Workspace,
    callbacks: Callbacks,
) -> Iterator[list[CachedCase]]:
    """Computes, or finds in the cache, features of the crops of the first training steps.

    As many passes over the training cases as `feature_passes` allows, or fewer where they would
    exceed `LIMIT_BYTES`. The head of the network does not matter. No other process removes the
    features during the context.

    Args:
        config: The resolved configuration.
        architecture: The architecture of the network.
        network: The network on its device, with a frozen backbone.
        draw: Returns the crops of a step.
        workspace: Where features are cached.
        callbacks: Observe the progress.

    Yields:
        Cached crops of features (F, i, j, k) in half precision, with their labels (i, j, k).
    """
    folder = _folder(config, workspace)
    with in_use(folder):
        _remove_old(folder)
        yield _cached_crops(config, architecture, network, draw, folder, callbacks)


def _cached_crops(
    config: AdaptConfig,
    architecture: Architecture,
    network: nn.Module,
    draw: Callable[[int], Crops],
    folder: Path,
    callbacks: Callbacks,
) -> list[CachedCase]:
    """Computes the features that the folder does not hold yet."""
    steps = _steps(config, architecture, network)
    crops: list[str] = []
    reused = 0
    out_of_memory = report_out_of_memory(
        "the extraction of features", "Lower the memory of the plan, or free some."
    )
    with out_of_memory, callbacks.progress("features", steps) as advance:
        for step in range(steps):
            names = [f"{step:04d}-{number}" for number in range(config.crops_per_step)]
            if all(has_case(folder, name) for name in names):
                reused += 1
            else:
                _write(config, architecture, network, draw(step), folder, names)
            crops += names
            advance(f"step {step}")
    logger.debug("%s: features of %d of %d steps were cached", folder, reused, steps)
    return [open_case(folder, name) for name in crops]


def _folder(config: AdaptConfig, workspace: Workspace) -> Path:
    """Returns the folder of the features, keyed by everything that they depend on."""
    training, plan = config.training, config.plan
    drawn = (
        config.crops_per_step,
        training.foreground_fraction,
        training.augmentations,
        {name: values for name, values in training.components.items() if "augment." in name},
        training.mirror,
        training.precision,
    )
    preprocessing = plan.preprocessing.model_dump(mode="json")
    network = (config.backbone_sha256, plan.architecture, plan.hparams, plan.device)
    cases = (config.support.cases, config.case_contents, config.labels, *annotation_key(config))
    used = [("architecture", plan.architecture)]
    used += [("augmentation", name) for name in training.augmentations]
    packages = [registry().provenance(kind, name).model_dump() for kind, name in used]
    code = (packages, versions())
    key = digest(_FORMAT, network, preprocessing, cases, drawn, config.request.seed, code)
    return workspace.features(plan.dataset, key)


def _remove_old(folder: Path) -> None:
    """Removes the least recently used features, except those that a process uses."""
    remove_leftovers(folder)
    remove_leftovers(folder.parent)
    for old in sorted(folder.parent.glob("features-*"), key=last_use)[:-KEPT]:
        remove_unused(old)


def _steps(config: AdaptConfig, architecture: Architecture, network: nn.Module) -> int:
    """Returns the number of steps whose crops fit `LIMIT_BYTES`; at least one step of each case."""
    width = architecture.head(network).in_channels
    voxels = int(np.prod(config.plan.preprocessing.patch_size)) * config.crops_per_step
    step_bytes = 2 * width * voxels
    k = len(config.support.cases)
    return k * max(1, min(config.training.feature_passes, LIMIT_BYTES // (k * step_bytes)))


@torch.inference_mode()
def _write(
    config: AdaptConfig,
    architecture: Architecture,
    network: nn.Module,
    crops: Crops,
    folder: Path,
    names: list[str],
) -> None:
    """Computes the features of some crops, and writes them to the cache."""
    training, device = network.training, config.plan.device
    classes = range(1, 1 + len(config.voxel_values))
    network.eval()
    for number, (name, image, label) in enumerate(
        zip(names, crops.images, crops.labels, strict=True)
    ):
        with autocast(device, config.training.precision):
            batch = architecture.features(network, torch.from_numpy(image[None]).to(device))
        features = batch[0].float().cpu().numpy().astype(np.float16)
        labels = _stored(label[0], len(config.voxel_values))
        annotated = crops.annotated
        meta = {} if annotated is None else {ANNOTATED: annotated[number].tolist()}
        write_case(folder, name, features, labels, meta, classes=classes)
    network.train(training)


def _stored(numbers: Array, largest: int) -> Array:
    """Returns numbers of structures as they are stored, `UNANNOTATED` where they are `IGNORED`."""
    is_ignored = numbers == IGNORED
    dtype = np.uint16 if is_ignored.any() else np.min_scalar_type(largest)
    return np.where(is_ignored, UNANNOTATED, numbers).astype(dtype)
