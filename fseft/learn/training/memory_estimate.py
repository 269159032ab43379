"""Memory and work of a training step, measured on a small patch and scaled."""

from __future__ import annotations

import os
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fseft.errors import FseftError, is_out_of_memory
from fseft.learn.training.network_cost import network_cost

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


def free_gpu_bytes() -> int:
    """Returns the free memory of the current GPU, in bytes."""
    import torch

    free, _ = torch.cuda.mem_get_info()
    return free


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
    are proportional to the number of voxels, and were measured on the smallest patch. The
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
    cost = network_cost(architecture, hparams, in_channels)
    # Another third: the largest activations coexist with their gradients in the backward pass.
    per_voxel = 1.33 * cost.activation_bytes + 20 * out_channels
    return int(per_voxel * prod(patch_size) * crops) + 16 * cost.parameters + OVERHEAD_BYTES


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
    return 3 * network_cost(architecture, hparams, in_channels).flops * prod(patch_size)


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
        import torch

        owner = "GPU" if isinstance(error, torch.OutOfMemoryError) else "computer"
        raise FseftError(f"{subject} does not fit the memory of the {owner}", hint=hint) from error
