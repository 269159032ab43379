"""Prefetching of training batches, in a thread or in processes, and seeds for them."""

from __future__ import annotations

from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from fseft.errors import FseftError
from fseft.parallel import start_worker

if TYPE_CHECKING:
    from collections.abc import Callable

B = TypeVar("B")


def derived_seed(seed: int, purpose: str, *numbers: int) -> int:
    """Returns a seed for a purpose and, say, a step, so that purposes do not affect each other.

    Args:
        seed: Seed of the run.
        purpose: Name of the purpose.
        *numbers: Whole numbers, not negative, such as a step.

    Returns:
        A seed of 32 bits.

    Examples:
        >>> derived_seed(0, "crops", 1) == derived_seed(0, "crops", 1)
        True
    """
    words = [seed, *purpose.encode(), *numbers]
    return int(np.random.SeedSequence(words).generate_state(1)[0])


class BatchPrefetcher(Generic[B]):
    """Draws the batches of the next steps while the network trains on the current one.

    For small networks a thread is enough; a GPU may need several processes.

    Args:
        draw: Function of a request that returns a batch; for processes, a module-level function.
        request: Function of a step, and of the context that `batch` is called with, that returns
            the request. The next steps are drawn for the same context, and drawn again where it
            turns out to be another.
        processes: Number of processes that draw batches; 1 for a thread.
    """

    def __init__(
        self,
        draw: Callable[[Any], B],
        request: Callable[..., Any] = lambda step: step,
        *,
        processes: int = 1,
    ) -> None:
        self._draw = draw
        self._request = request
        self._pool = _executor(processes)
        self._depth = max(1, processes)
        self._futures: dict[tuple[Any, ...], Future[B]] = {}

    def __enter__(self) -> BatchPrefetcher[B]:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def batch(self, step: int, *context: object) -> B:
        """Returns the batch of a step.

        Args:
            step: Number of the step.
            *context: More arguments of `request`, such as held-out cases.

        Raises:
            FseftError: A process was killed.
        """
        keys = [(number, *context) for number in range(step, step + self._depth + 1)]
        self._futures = {key: future for key, future in self._futures.items() if key in keys}
        try:
            for key in keys:
                if key not in self._futures:
                    self._futures[key] = self._pool.submit(self._draw, self._request(*key))
            return self._futures.pop(keys[0]).result()
        except BrokenProcessPool as error:
            raise FseftError(
                "a process that draws crops was killed, most likely for lack of memory",
                hint="Use fewer `workers`.",
            ) from error


def _executor(processes: int) -> Executor:
    if processes <= 1:
        return ThreadPoolExecutor(1, thread_name_prefix="batches")
    # Spawned: forking after torch has started threads may hang.
    context = get_context("spawn")
    return ProcessPoolExecutor(processes, mp_context=context, initializer=start_worker)
