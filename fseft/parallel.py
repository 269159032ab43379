"""Map a function over cases on any `concurrent.futures` executor, with progress."""

from __future__ import annotations

import os
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import TYPE_CHECKING, TypeVar

from fseft.errors import FseftError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

T = TypeVar("T")
R = TypeVar("R")


class Inline(Executor):
    """The executor for one worker: runs at submission, in this process."""

    def submit(self, fn: Callable[..., R], /, *args: object, **kwargs: object) -> Future[R]:
        """Run now; an error is kept in the future, as with any executor."""
        future: Future[R] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # handed to whoever asks for the result
            future.set_exception(error)
        return future


def default_workers() -> int:
    """As many as there are usable cores."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def executor(workers: int) -> Iterator[Executor]:
    """Processes for more than one worker. They are spawned: forking after torch has started threads may hang."""
    if workers <= 1:
        yield Inline()
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield pool


def map_cases(
    function: Callable[[T], R],
    items: Mapping[str, T],
    *,
    workers: int = 1,
    done: Callable[[str], None] | None = None,
) -> dict[str, R]:
    """Apply `function` to every item; results in the order of `items`.

    All items are tried even if one fails, so that nothing which was done is lost; then the first error is raised.

    Args:
        function: A module-level function of one item.
        items: Case name -> item.
        workers: Number of processes.
        done: Called with the case name as each ends.

    Raises:
        FseftError: A case failed, or its worker was killed (most often for want of memory).
    """
    results: dict[str, R] = {}
    errors: list[FseftError] = []
    with executor(min(workers, len(items))) as pool:
        futures = _submit(pool, function, items)
        for future in as_completed(futures):
            case = futures[future]
            try:
                results[case] = future.result()
            except FseftError as error:
                errors.append(error.located(case=case))
            except (BrokenProcessPool, MemoryError) as error:
                raise FseftError(
                    "the worker was killed, most likely for want of memory",
                    case=case,
                    hint="Use fewer --workers.",
                ) from error
            if done is not None:
                done(case)
    if errors:
        more = f" ({len(errors) - 1} more cases failed)" if len(errors) > 1 else ""
        first = errors[0]
        raise FseftError(first.cause + more, hint=first.hint, case=first.case, file=first.file)
    return {case: results[case] for case in items}


def _submit(pool: Executor, function: Callable[[T], R], items: Mapping[str, T]) -> Mapping[Future[R], str]:
    return {pool.submit(function, item): case for case, item in items.items()}
