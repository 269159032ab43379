"""Batches drawn ahead, in a second thread or in processes, each from a generator of its own step."""

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
    """One seed per purpose and place, so that drawing more for one thing changes no other."""
    words = [seed, *purpose.encode(), *numbers]
    return int(np.random.SeedSequence(words).generate_state(1)[0])


class BatchPrefetcher(Generic[B]):
    """`batch(step, *given)` gives a step's batch, while those of the next steps are drawn already.

    For small networks one thread is enough, and batchgenerators keeps its state in a global; a GPU asks for processes.

    Args:
        draw: Makes a batch of what `order` gives. With processes: a module-level function.
        order: What to draw for a step, and for what is given with it. The next steps are drawn as if the same were
            given for them; where it is not, they are drawn again.
        processes: More than one draw as many batches side by side; by default a thread draws the next one.
    """

    def __init__(
        self,
        draw: Callable[[Any], B],
        order: Callable[..., Any] = lambda step: step,
        *,
        processes: int = 1,
    ) -> None:
        self._draw, self._order = draw, order
        # Spawned: forking after torch has started threads may hang.
        self._pool: Executor = (
            ProcessPoolExecutor(
                processes, mp_context=get_context("spawn"), initializer=start_worker
            )
            if processes > 1
            else ThreadPoolExecutor(1, thread_name_prefix="batches")
        )
        self._depth = max(1, processes)
        self._ready: dict[tuple[Any, ...], Future[B]] = {}

    def __enter__(self) -> BatchPrefetcher[B]:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def batch(self, step: int, *given: object) -> B:
        """The batch of a step.

        Raises:
            FseftError: A process was killed.
        """
        wanted = [(n, *given) for n in range(step, step + self._depth + 1)]
        self._ready = {asked: future for asked, future in self._ready.items() if asked in wanted}
        try:
            for asked in wanted:
                if asked not in self._ready:
                    self._ready[asked] = self._pool.submit(self._draw, self._order(*asked))
            return self._ready.pop(wanted[0]).result()
        except BrokenProcessPool as error:
            raise FseftError(
                "a process that draws crops was killed, most likely for want of memory",
                hint="Use fewer --workers.",
            ) from error
