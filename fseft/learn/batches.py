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
    """`batch(step, *given)` gives what `draw(step, *given)` makes, while the next step is drawn already.

    The next step is drawn as if the same were given for it; where it is not, it is drawn again.

    One thread is enough: drawing costs a tenth of a step, and batchgenerators keeps its state in a global.
    """

    def __init__(self, draw: Callable[..., B]) -> None:
        self._draw = draw
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._next: tuple[tuple[object, ...], Future[B]] | None = None

    def __enter__(self) -> Ahead[B]:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def batch(self, step: int, *given: object) -> B:
        """The batch of a step."""
        ready = self._next
        future = ready[1] if ready and ready[0] == (step, *given) else self._pool.submit(self._draw, step, *given)
        self._next = ((step + 1, *given), self._pool.submit(self._draw, step + 1, *given))
        return future.result()
