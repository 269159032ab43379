"""Memory and work of a training step, measured on a small patch and scaled."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from fseft.errors import FseftError, is_out_of_memory
from fseft.learn.networks import backbone

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fseft.schemas import Triple

OVERHEAD_BYTES = 640 << 20
"""Memory of the process itself: interpreter, torch, and the buffers of its libraries."""
DEFAULT_BYTES = 8 << 30
"""Memory that is assumed where the operating system does not report it."""
LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Files of Linux with the limit of a container or job (cgroups version 2 and 1)."""


def installed_bytes() -> int:
    """Returns the memory of the computer, or the limit of the container or job, in bytes."""
    available = [DEFAULT_BYTES]
    if hasattr(os, "sysconf"):
        available = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in LIMITS:
        limit = path.read_text(encoding="ascii").strip() if os.access(path, os.R_OK) else ""
        if limit.isdecimal():  # else `max`: unlimited
            available.append(int(limit))
    return min(available)


def training_bytes(
    architecture: str,
    hparams: Mapping[str, Any],
    *,
    in_channels: int,
    out_channels: int,
    patch_size: Triple,
    crops: int,
) -> int:
    """Returns the peak memory of a training step of the whole network, in bytes.

    It consists of activations, weights, gradients and two moments of the optimizer. Activations
    are proportional to the number of voxels, so they are measured once on the smallest patch. The
    loss takes five float32 values for each voxel and output: logit, softmax, reference, and the
    gradients of the first two.

    Args:
        architecture: Name of the architecture.
        hparams: Its hyper-parameters.
        in_channels: Channels of the image.
        out_channels: Channels of the logits.
        patch_size: Size of a crop (i, j, k) in voxels.
        crops: Crops per step.
    """
    key = json.dumps(dict(hparams), sort_keys=True)
    activations, parameters, _ = _measure(architecture, key, in_channels)
    # Another third: the largest activations coexist with their gradients in the backward pass.
    per_voxel = 1.33 * activations + 20 * out_channels
    return int(per_voxel * prod(patch_size) * crops) + 16 * parameters + OVERHEAD_BYTES


def training_flops(
    architecture: str, hparams: Mapping[str, Any], *, in_channels: int, patch_size: Triple
) -> float:
    """Returns the floating-point operations of a training step with one crop.

    The backward pass takes twice those of the forward pass. Only those of convolutions, matrix
    products and attention are counted.

    Args:
        architecture: Name of the architecture.
        hparams: Its hyper-parameters.
        in_channels: Channels of the image.
        patch_size: Size of a crop (i, j, k) in voxels.
    """
    key = json.dumps(dict(hparams), sort_keys=True)
    _, _, forward = _measure(architecture, key, in_channels)
    return 3 * forward * prod(patch_size)


@lru_cache(maxsize=8)
def _measure(name: str, hparams: str, in_channels: int) -> tuple[float, int, float]:
    """Returns the bytes of activations per voxel, parameters, and operations per voxel.

    The network runs on the meta device, without memory and arithmetic: what a real run allocates
    would stay with the process, in addition to what the training needs.
    """
    architecture, settings = backbone.get_architecture(name), json.loads(hparams)
    network = backbone.build_network(
        architecture, in_channels=in_channels, out_channels=1, hparams=settings, seed=0
    )
    parameters = backbone.count_parameters(network)
    smallest = backbone.patch_limits(architecture, settings).minimum
    patch = torch.zeros(1, in_channels, *smallest, device="meta")
    try:
        saved_bytes, flops = _count(network.to("meta"), patch)
    except (NotImplementedError, RuntimeError):  # a network whose code depends on values
        network = backbone.build_network(
            architecture, in_channels=in_channels, out_channels=1, hparams=settings, seed=0
        )
        saved_bytes, flops = _count(network, torch.zeros(1, in_channels, *smallest))
    voxels = prod(smallest)
    return saved_bytes / voxels, parameters, flops / voxels


def _count(network: torch.nn.Module, patch: torch.Tensor) -> tuple[int, float]:
    """Returns the bytes that a forward pass saves for the backward pass, and its operations."""
    saved: dict[int, int] = {}

    def record(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        saved[storage._cdata] = storage.nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor)
    with FlopCounterMode(display=False) as counter, hooks:
        output = network(patch)
    for parameter in network.parameters():
        saved.pop(parameter.untyped_storage()._cdata, None)
    del output  # only now: it keeps the saved tensors, and so their storages, in use
    return sum(saved.values()), counter.get_total_flops()


@contextmanager
def report_out_of_memory(subject: str, hint: str) -> Iterator[None]:
    """Turns a failed allocation within a context into an error of a line.

    Args:
        subject: Subject of the message, such as `a training step`.
        hint: Remedy.

    Raises:
        FseftError: The memory of the GPU or of the computer is too small.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        owner = "GPU" if isinstance(error, torch.OutOfMemoryError) else "computer"
        raise FseftError(f"{subject} does not fit the memory of the {owner}", hint=hint) from error
