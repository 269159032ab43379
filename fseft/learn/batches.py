"""Batches drawn one step ahead in a second thread, each from a generator of its own step."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

B = TypeVar("B")


def derived_seed(seed: int, purpose: str, *numbers: int) -> int:
    """One seed per purpose and place, so that drawing more for one thing changes no other."""
    words = [seed, *purpose.encode(), *numbers]
    return int(np.random.SeedSequence(words).generate_state(1)[0])


class Ahead(Generic[B]):
    """`batch(step)` gives what `draw(step)` makes, while the next step is drawn already.

    One thread is enough: drawing costs a tenth of a step, and batchgenerators keeps its state in a global.
    """

    def __init__(self, draw: Callable[[int], B]) -> None:
        self._draw = draw
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._next: tuple[int, Future[B]] | None = None

    def __enter__(self) -> Ahead[B]:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def batch(self, step: int) -> B:
        """The batch of a step."""
        ready = self._next
        future = ready[1] if ready and ready[0] == step else self._pool.submit(self._draw, step)
        self._next = (step + 1, self._pool.submit(self._draw, step + 1))
        return future.result()
