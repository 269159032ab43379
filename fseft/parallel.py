"""Map a function over cases on any `concurrent.futures` executor, with progress: processes here, or a dask cluster."""

from __future__ import annotations

import os
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    as_completed,
)
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar

from fseft.errors import FseftError, pluralise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from multiprocessing.process import BaseProcess

T = TypeVar("T")
R = TypeVar("R")

Workers = int | str
"""Number of processes on this machine, or the address of a running dask scheduler, `tcp://host:port`."""

_NAMED = 5  # cases in an error
_SECONDS = 5  # to reach a scheduler, and for one with workers to be found
_KILLED_BY_DASK = "KilledWorker"  # by name, as dask may not be installed


class InlineExecutor(Executor):
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


def end_with_parent() -> None:
    """Let this process end when the one that started it does, killed or not: it would go on to hold memory."""
    if (parent := parent_process()) is not None:
        Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


@contextmanager
def executor(workers: Workers) -> Iterator[Executor]:
    """What runs the cases.

    Args:
        workers: One works in this process. Several are processes, which are spawned: forking after torch has started
            threads may hang. For a cluster, all that is sent names files by absolute paths.

    Raises:
        FseftError: There is no scheduler at the address, or it has no workers that serve.
    """
    if isinstance(workers, str):
        with _cluster(workers) as pool:
            yield pool
    elif workers <= 1:
        yield InlineExecutor()
    else:
        pool = ProcessPoolExecutor(
            workers, mp_context=get_context("spawn"), initializer=end_with_parent
        )
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)  # after Ctrl-C, what has not begun does not begin


@contextmanager
def _cluster(address: str) -> Iterator[Executor]:
    try:
        from distributed import Client
    except ImportError as error:
        raise FseftError(
            "--cluster needs dask", hint="Run pip install 'fseft[cluster]'."
        ) from error
    if ":" not in address:
        raise FseftError(
            f"--cluster {address}: is no address",
            hint="Write for example --cluster tcp://10.0.0.1:8786.",
        )
    try:
        client = Client(address, timeout=_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        cause = f"--cluster {address}: no dask scheduler answers there"
        raise FseftError(
            cause, hint="Start one with `dask scheduler`, and give the address that it prints."
        ) from error
    with client:
        _check_workers(client, address)
        # Not pure: dask would otherwise give the result of an earlier call again, whatever became of the files.
        yield client.get_executor(pure=False)


def _check_workers(client: Any, address: str) -> None:
    start = f"Start some with `dask worker {address} --nworkers N --nthreads 1`."
    try:
        client.wait_for_workers(1, timeout=_SECONDS)
    except TimeoutError as error:
        raise FseftError(
            f"--cluster {address}: the scheduler has no workers", hint=start
        ) from error
    if any(threads > 1 for threads in client.nthreads().values()):
        raise FseftError(
            f"--cluster {address}: a worker runs several cases in one process", hint=start
        )


def each_case(
    function: Callable[[T], R], items: Iterable[tuple[str, T]], *, workers: Workers = 1
) -> Iterator[tuple[str, R | FseftError]]:
    """Apply `function` to every item, and give each case as it ends, with its result or what was wrong with it.

    Args:
        function: A module-level function of one item.
        items: Case name and item; one worker takes the next when it has done the last.
        workers: Who does it.

    Raises:
        FseftError: A worker was killed (most often for want of memory), or the cluster is gone.
    """
    with executor(workers) as pool:
        for case, future in _ended(pool, function, items):
            yield case, _outcome(case, future)


def _ended(
    pool: Executor, function: Callable[[T], R], items: Iterable[tuple[str, T]]
) -> Iterator[tuple[str, Future[R]]]:
    if isinstance(pool, InlineExecutor):
        yield from ((case, pool.submit(function, item)) for case, item in items)
        return
    futures = {pool.submit(function, item): case for case, item in items}
    yield from ((futures[future], future) for future in as_completed(futures))


def _outcome(case: str, future: Future[Any]) -> Any:
    """The result of a case, or its error if it is a user's."""
    try:
        return future.result()
    except FseftError as error:
        return error.located(case=case)
    except CancelledError as error:
        raise FseftError(
            "the cluster is gone", case=case, hint="Start it again, and run again."
        ) from error
    except Exception as error:
        if not (
            isinstance(error, BrokenExecutor | MemoryError)
            or type(error).__name__ == _KILLED_BY_DASK
        ):
            raise
        cause = "the worker was killed, most likely for want of memory"
        raise FseftError(cause, case=case, hint="Use fewer --workers.") from error


def map_cases(
    function: Callable[[T], R],
    items: Mapping[str, T],
    *,
    workers: Workers = 1,
    done: Callable[[str], None] | None = None,
) -> dict[str, R]:
    """Apply `function` to every item; results in the order of `items`.

    All items are tried even if one fails, so that nothing which was done is lost; then the first error is raised.

    Args:
        function: A module-level function of one item.
        items: Case name -> item.
        workers: Who does it.
        done: Called with the case name as each ends.

    Raises:
        FseftError: A case failed, or as for `each_case`.
    """
    with executor(workers if isinstance(workers, str) else min(workers, len(items))) as pool:
        return _collected(pool, function, items, done)


def map_in_threads(function: Callable[[T], R], items: Mapping[str, T]) -> dict[str, R]:
    """As `map_cases` in as many threads as there are cores, for what leaves the interpreter free, such as hashing."""
    with ThreadPoolExecutor(default_workers()) as pool:
        return _collected(pool, function, items)


def _collected(
    pool: Executor,
    function: Callable[[T], R],
    items: Mapping[str, T],
    done: Callable[[str], None] | None = None,
) -> dict[str, R]:
    """The results in the order of the items, or the first error."""
    results: dict[str, R] = {}
    errors: list[FseftError] = []
    for case, future in _ended(pool, function, items.items()):
        outcome = _outcome(case, future)
        if isinstance(outcome, FseftError):
            errors.append(outcome)
        else:
            results[case] = outcome
        if done is not None:
            done(case)
    if errors:
        first, *others = errors
        names = ", ".join(str(other.case) for other in others[:_NAMED]) + (
            ", ..." if len(others) > _NAMED else ""
        )
        more = f" ({pluralise(len(others), 'more case')} failed: {names})" if others else ""
        raise FseftError(first.cause + more, hint=first.hint, case=first.case, file=first.file)
    return {case: results[case] for case in items}
