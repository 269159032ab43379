"""Distributed training with torchrun; for a process alone, all of it does nothing."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import distributed

from fseft.errors import FseftError
from fseft.learn.training.memory_format import to_device

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from torch import Tensor, nn

T = TypeVar("T")

RANK_ZERO_TIMEOUT = timedelta(days=7)
"""Time that the other ranks wait for rank 0, for example while it preprocesses."""


@dataclass(frozen=True)
class DistributedContext:
    """The group of processes that train a network together.

    Attributes:
        rank: Number of this process, from 0.
        size: Number of processes.
        device: `cpu` or `cuda`, the same for all.
        waiting_group: Process group with a long timeout, for waiting on rank 0.
    """

    rank: int = 0
    size: int = 1
    device: str = "cpu"
    waiting_group: Any = None

    def sum(self, tensor: Tensor) -> Tensor:
        """Returns the sum of a tensor of any shape over all ranks, without gradient."""
        tensor = tensor.detach().clone()
        if self.size > 1:
            distributed.all_reduce(tensor)
        return tensor

    def broadcast(self, value: float) -> float:
        """Returns the value of rank 0, where ranks would differ, such as the elapsed time."""
        if self.size == 1:
            return value
        tensor = torch.tensor([value], dtype=torch.float64, device=self.device)
        distributed.broadcast(tensor, src=0)
        return float(tensor)

    def run_on_rank_zero(self, function: Callable[[], T]) -> T:
        """Calls a function on rank 0 and returns its result on all ranks.

        Raises:
            FseftError: On rank 0, if the function raises it.
            SystemExit: On the other ranks in that case.
        """
        if self.size == 1:
            return function()
        outcome: list[Any] = [False, None]
        try:
            if self.rank == 0:
                outcome = [True, function()]
        finally:
            distributed.broadcast_object_list(outcome, src=0, group=self.waiting_group)
        succeeded, result = outcome
        if not succeeded:
            raise SystemExit(2)
        return cast("T", result)

    def wrap_model(
        self, network: nn.Module, *, shard: Iterable[nn.Module] | None = None
    ) -> nn.Module:
        """Returns the module to call, whose gradients are means over the ranks.

        Args:
            network: The same network on all ranks. It is moved to the device, if sharded part by
                part, so that it need not fit a device; its parameters are then replaced.
            shard: Modules to shard with FSDP2, each gathered for its forward and backward pass
                (Zhao et al. 2023, arXiv:2304.11277); None for DDP.
        """
        if self.size == 1:
            return to_device(network, self.device)
        if shard is None:
            from torch.nn.parallel import DistributedDataParallel

            return DistributedDataParallel(to_device(network, self.device))
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(self.device, (self.size,))
        for module in (*shard, network):
            # Always resharded: parameters that stay gathered would miss a switch to averaged ones.
            fully_shard(module, mesh=mesh, reshard_after_forward=True)
        return network


ALONE = DistributedContext()


@contextmanager
def init_process_group(device: str) -> Iterator[DistributedContext]:
    """Joins the process group that torchrun describes in the environment, if it does.

    Args:
        device: `cpu` or `cuda`.

    Raises:
        FseftError: This rank has no GPU, or another rank has ended; errors name the rank.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    if size == 1:
        yield DistributedContext(device=device)
        return
    try:
        if device == "cuda":
            _select_gpu(int(os.environ["LOCAL_RANK"]))
        distributed.init_process_group("nccl" if device == "cuda" else "gloo")
        waiting_group = distributed.new_group(backend="gloo", timeout=RANK_ZERO_TIMEOUT)
        yield DistributedContext(rank, size, device, waiting_group)
        distributed.destroy_process_group()
    except FseftError as error:
        message = f"rank {rank}: {error.cause}"
        raise FseftError(message, hint=error.hint, case=error.case, file=error.file) from error
    except RuntimeError as error:
        if not (isinstance(error, distributed.DistError) or "gloo" in str(error)):
            raise
        raise FseftError(
            f"rank {rank}: another rank has ended",
            hint="The message of that rank gives the reason; run again to resume.",
        ) from error


def _select_gpu(local_rank: int) -> None:
    count = torch.cuda.device_count()
    if local_rank >= count:
        raise FseftError(
            f"no GPU is left for local rank {local_rank}: this machine has {count}",
            hint=f"Start at most {count} processes on it.",
        )
    torch.cuda.set_device(local_rank)


def gather_full_tensor(value: Any) -> Any:
    """Gathers sharded tensors, also in dicts and lists, on the CPU; a GPU may not hold them.

    A collective operation: call it on all ranks.
    """
    if isinstance(value, dict):
        gathered = {}
        for key, item in value.items():
            gathered[key] = gather_full_tensor(item)
        return gathered
    if isinstance(value, list):
        return [gather_full_tensor(item) for item in value]
    if _is_sharded(value):
        return value.full_tensor().cpu()
    return value


def distribute_like(value: Any, parameter: Tensor) -> Any:
    """Returns this rank's shard of a full tensor, sharded as a parameter; other values as they are.

    Args:
        value: A tensor, or another value in an optimizer's state.
        parameter: The parameter; a tensor of another shape is not sharded.
    """
    if not _is_sharded(parameter) or _is_sharded(value):
        return value
    if not isinstance(value, torch.Tensor) or value.shape != parameter.shape:
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(parameter, DTensor)  # noqa: S101 - for the type checker
    value = value.to(parameter.device)
    return distribute_tensor(value, parameter.device_mesh, parameter.placements)


def _is_sharded(value: object) -> bool:
    # The module takes a second of CPU time to import, and sharding a network imports it.
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(value, module.DTensor)
