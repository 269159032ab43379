"""Features of a frozen network on crops of the support cases: computed in one pass, and kept for other methods."""

from __future__ import annotations

from shutil import rmtree
from typing import TYPE_CHECKING

import numpy as np
import torch

from fseft.learn.training.memory_estimate import report_out_of_memory
from fseft.learn.training_loop import autocast
from fseft.model_zoo.adapter_file import versions
from fseft.registry import registry
from fseft.volume.cache import has_case, open_case, write_case
from fseft.workspace import digest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn

    from fseft.adaptation.configure import AdaptConfig, Listener
    from fseft.learn.networks.roles import Architecture
    from fseft.learn.sampling.patch_sampler import Crops
    from fseft.volume.cache import CachedCase
    from fseft.workspace import Workspace

LIMIT_BYTES = 4_000_000_000
"""Of the features of one pass, before compression; crops are left out that would exceed it."""

KEPT = 5  # features of so many sets of crops stay of a dataset
_FORMAT = 2  # raised when the same input gives other features


def feature_crops(
    job: AdaptConfig,
    architecture: Architecture,
    network: nn.Module,
    draw: Callable[[int], Crops],
    store: Workspace,
    listener: Listener,
) -> list[CachedCase]:
    """Crops of features (F, i, j, k) in half precision, with their labels, in the cache of preprocessed arrays.

    They are those of the first steps of a training on fresh crops: of `rounds` passes over the support cases, or
    fewer where they would take too much room. Which head the network has makes no difference.

    Args:
        job: What was decided.
        architecture: Of the network.
        network: On its device; its body is frozen.
        draw: The crops of a step.
        store: Says where.
        listener: Told how far the pass is.
    """
    folder = _folder(job, store)
    folder.mkdir(parents=True, exist_ok=True)
    _keep_latest(folder)
    steps = _steps(job, architecture, network)
    names: list[str] = []
    short = report_out_of_memory("the pass for features", "Give a smaller --memory, or free some.")
    with short, listener.progress(steps, "features") as done:
        for step in range(steps):
            of_step = [f"{step:04d}-{number}" for number in range(job.crops)]
            if not all(has_case(folder, name) for name in of_step):
                _write(job, architecture, network, draw(step), folder, of_step)
            names += of_step
            done(f"step {step}")
    return [open_case(folder, name) for name in names]


def _folder(job: AdaptConfig, store: Workspace) -> Path:
    recipe = job.recipe
    drawn = (
        job.crops,
        recipe.foreground_fraction,
        recipe.augment,
        recipe.mirror,
        recipe.precision,
    )
    how = job.plan.preprocessing.model_dump(mode="json")
    network = (job.backbone_sha256, job.plan.architecture, job.plan.hparams, job.plan.device)
    cases = (job.support.cases, job.contents, job.labels)
    code = (registry().provenance("architecture", job.plan.architecture).version, versions())
    return store.features(
        job.plan.dataset, digest(_FORMAT, network, how, cases, drawn, job.request.seed, code)
    )


def _keep_latest(folder: Path) -> None:
    """Count these features as used last, and remove those that were used longest ago."""
    folder.touch()
    by_use = sorted(folder.parent.glob("features-*"), key=lambda one: one.stat().st_mtime)
    for old in by_use[:-KEPT]:
        rmtree(old, ignore_errors=True)


def _steps(job: AdaptConfig, architecture: Architecture, network: nn.Module) -> int:
    """As many as asked for, as far as the room goes; at least one of each case."""
    width = architecture.head(network).in_channels
    step_bytes = 2 * width * int(np.prod(job.plan.preprocessing.patch_size))
    step_bytes *= job.crops
    k = len(job.support.cases)
    return k * max(1, min(job.recipe.feature_passes, LIMIT_BYTES // (k * step_bytes)))


@torch.inference_mode()
def _write(
    job: AdaptConfig,
    architecture: Architecture,
    network: nn.Module,
    crops: Crops,
    folder: Path,
    names: list[str],
) -> None:
    training = network.training
    network.eval()
    for name, image, label in zip(names, crops.images, crops.labels, strict=True):
        with autocast(job.plan.device, job.recipe.precision):
            found = architecture.features(
                network, torch.from_numpy(image[None]).to(job.plan.device)
            )
        features = found[0].float().cpu().numpy().astype(np.float16)
        labels = label[0].astype(np.min_scalar_type(len(job.labels)))
        write_case(folder, name, features, labels, {}, classes=range(1, 1 + len(job.labels)))
    network.train(training)
