"""Several processes that train one network, as torchrun starts them; alone, everything here changes nothing."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import distributed
from torch.distributed.tensor import DTensor, distribute_tensor

from fseft.errors import FseftError
from fseft.learn.training.memory_format import to_device

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from torch import Tensor, nn

T = TypeVar("T")

PATIENCE = timedelta(days=7)
"""As long the others wait for what rank 0 does alone, such as preprocessing."""


def is_rank_zero() -> bool:
    """Whether this process speaks and writes for all; known before they have met."""
    return os.environ.get("RANK", "0") == "0"


@dataclass(frozen=True)
class DistributedContext:
    """This process and its peers.

    Attributes:
        rank: Which of them this is.
        size: How many there are.
        device: `cpu` or `cuda`, the same for all.
        patient: The group for waiting, whose time limit is long.
    """

    rank: int = 0
    size: int = 1
    device: str = "cpu"
    patient: Any = None

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all ranks; without gradient."""
        tensor = tensor.detach().clone()
        if self.size > 1:
            distributed.all_reduce(tensor)
        return tensor

    def broadcast(self, value: float) -> float:
        """What rank 0 says, where each rank would say something else: the time."""
        if self.size == 1:
            return value
        told = torch.tensor([value], dtype=torch.float64, device=self.device)
        distributed.broadcast(told, src=0)
        return float(told)

    def run_on_rank_zero(self, make: Callable[[], T]) -> T:
        """What rank 0 makes, for all; where it fails there, it alone tells why.

        Raises:
            FseftError: On rank 0, if it was raised there.
            SystemExit: On all others then.
        """
        if self.size == 1:
            return make()
        made: list[Any] = [False, None]
        try:
            if self.rank == 0:
                made = [True, make()]
        finally:
            distributed.broadcast_object_list(made, src=0, group=self.patient)
        if not made[0]:
            raise SystemExit(2)
        return cast("T", made[1])

    def wrap_model(
        self, network: nn.Module, *, shard: Iterable[nn.Module] | None = None
    ) -> nn.Module:
        """The module to call, whose gradients are means over the ranks: DDP, or FSDP2 where parts are to be sharded.

        Args:
            network: The same on all ranks; its parameters are replaced where it is sharded. It goes to the device,
                whole or, sharded, part by part: it need not fit one device.
            shard: What is gathered as a whole for its forward and backward pass (Zhao et al. 2023, arXiv:2304.11277).
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
            # Resharded always: what is kept gathered would miss that averaged weights take the place of others.
            fully_shard(module, mesh=mesh, reshard_after_forward=True)
        return network


ALONE = DistributedContext()


@contextmanager
def init_process_group(device: str) -> Iterator[DistributedContext]:
    """Meet the other processes that torchrun has started, if it has.

    Raises:
        FseftError: There is no GPU for this rank, or another rank has ended; of an error here, the rank is told.
    """
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if size == 1:
        yield DistributedContext(device=device)
        return
    try:
        if device == "cuda":
            _take_gpu(int(os.environ["LOCAL_RANK"]))
        distributed.init_process_group("nccl" if device == "cuda" else "gloo")
        yield DistributedContext(
            rank, size, device, distributed.new_group(backend="gloo", timeout=PATIENCE)
        )
        distributed.destroy_process_group()
    except FseftError as error:
        raise FseftError(
            f"rank {rank}: {error.cause}", hint=error.hint, case=error.case, file=error.file
        ) from error
    except RuntimeError as error:
        if not (isinstance(error, distributed.DistError) or "gloo" in str(error)):
            raise
        raise FseftError(
            f"rank {rank}: another rank has ended",
            hint="Its own line says why; run again to go on.",
        ) from error


def _take_gpu(local_rank: int) -> None:
    found = torch.cuda.device_count()
    if local_rank >= found:
        raise FseftError(
            f"there is no GPU for it, this machine has {found}",
            hint=f"Use --nproc-per-node {found} at most.",
        )
    torch.cuda.set_device(local_rank)


def gather_full_tensor(value: Any) -> Any:
    """Tensors, also in dicts and lists, put together from their shards on the CPU, as a card may not hold all.

    All ranks must ask.
    """
    if isinstance(value, dict):
        return {key: gather_full_tensor(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [gather_full_tensor(inner) for inner in value]
    return value.full_tensor().cpu() if isinstance(value, DTensor) else value


def distribute_like(value: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor as the parameter is: this rank's shard of it, or all."""
    if (
        not isinstance(parameter, DTensor)
        or isinstance(value, DTensor)
        or value.shape != parameter.shape
    ):
        return value
    return distribute_tensor(
        value.to(parameter.device), parameter.device_mesh, parameter.placements
    )
