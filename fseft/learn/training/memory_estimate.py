"""Memory: how much a training step needs, measured on a small patch and scaled; and what is told where it is short."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fseft.errors import FseftError, is_out_of_memory
from fseft.learn.networks import backbone

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fseft.schemas import Triple

OVERHEAD_BYTES = 400 << 20
"""The process itself: interpreter, torch, and the buffers of its libraries."""


LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where Linux tells what a container or a job may use, in its newer and its older way."""


def installed_bytes() -> int:
    """Memory of the computer, or what a container or job may use of it; 8 GiB where it does not tell."""
    whole = (
        os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if hasattr(os, "sysconf")
        else 8 << 30
    )
    limits = [
        path.read_text(encoding="ascii").strip() for path in LIMITS if os.access(path, os.R_OK)
    ]
    return min([whole, *(int(limit) for limit in limits if limit.isdecimal())])


def training_bytes(
    architecture: str,
    hparams: Mapping[str, Any],
    *,
    in_channels: int,
    out_channels: int,
    patch_size: Triple,
    crops: int,
) -> int:
    """Peak bytes of one full training step: what autograd keeps, weights, gradients and two optimiser moments.

    What autograd keeps grows with the number of voxels, so it is counted once on the smallest patch. The loss holds
    five float32 values for each voxel and output: logit, softmax, reference, and the gradients of the first two.
    """
    kept, parameters = _measure(
        architecture, json.dumps(dict(hparams), sort_keys=True), in_channels
    )
    # A third more than what is kept: the largest tensors and their gradients live side by side in the backward pass.
    per_voxel = 1.33 * kept + 20 * out_channels
    return int(per_voxel * prod(patch_size) * crops) + 16 * parameters + OVERHEAD_BYTES


@lru_cache(maxsize=8)
def _measure(name: str, hparams: str, in_channels: int) -> tuple[float, int]:
    """Bytes kept per voxel, and the number of parameters."""
    made = backbone.get_architecture(name)
    network = backbone.build_network(
        made, in_channels=in_channels, out_channels=1, hparams=json.loads(hparams), seed=0
    )
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = network(torch.zeros(1, in_channels, *made.minimum_patch))
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
    activations = sum(size for pointer, size in kept.items() if pointer not in weights)
    del output
    return activations / prod(made.minimum_patch), backbone.count_parameters(network)


@contextmanager
def report_out_of_memory(what: str, hint: str) -> Iterator[None]:
    """Tell in one line that something does not fit the memory, of a GPU or of the computer.

    Args:
        what: Does not fit.
        hint: What to do about it.

    Raises:
        FseftError: Memory was asked for and not there.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        whose = "of the GPU" if isinstance(error, torch.OutOfMemoryError) else "of the computer"
        raise FseftError(f"{what} does not fit the memory {whose}", hint=hint) from error
