"""Maps a function over cases: in this process, in local processes, or on a dask cluster."""

from __future__ import annotations

import os
import signal
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
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context, parent_process, resource_tracker
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, TypeVar

from fseft.errors import FseftError, pluralise, summarise_exception
from fseft.logs import captured_records, replay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from logging import LogRecord
    from multiprocessing.process import BaseProcess

T = TypeVar("T")
R = TypeVar("R")
E = TypeVar("E", bound=Exception)

Workers = int | str
"""Number of local processes, or the address of a running dask scheduler, `tcp://host:port`."""

_MAX_NAMED = 5  # cases in an error
_TIMEOUT_S = 5  # to reach a scheduler, and for a worker to register with it
_GRACE_S = 10  # from SIGTERM to SIGKILL, for a worker to remove its temporary files
_END_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_KILLED_BY_DASK = "KilledWorker"  # by name, since dask is optional

_terminating = Event()
"""Set in a worker process that received SIGTERM."""


class InlineExecutor(Executor):
    """An executor for a single worker: calls the function at submission, in this process."""

    def submit(self, fn: Callable[..., R], /, *args: object, **kwargs: object) -> Future[R]:
        """Calls the function and returns a completed future.

        An exception is set in the future, as with any executor; a `MemoryError` as a `FseftError`.

        Args:
            fn: The function.
            *args: Its positional arguments.
            **kwargs: Its keyword arguments.
        """
        future: Future[R] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except MemoryError as error:  # not the fault of several workers
            cause = f"the memory is too small ({summarise_exception(error)})"
            small = FseftError(cause, hint="Free some, or use a machine with more memory.")
            small.__cause__ = error
            future.set_exception(small)
        except Exception as error:  # raised by `future.result()`, as with any executor
            future.set_exception(error)
        return future


def default_workers() -> int:
    """Returns the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Delays Ctrl-C and SIGTERM, also in processes that start in the context, to its end."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    # It unblocks both signals when it starts, which the first worker would cause otherwise.
    resource_tracker.ensure_running()
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, _END_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


class _WorkerPool(ProcessPoolExecutor):
    """Worker processes that print no traceback if a signal reaches them while they start."""

    def submit(self, fn: Callable[..., R], /, *args: Any, **kwargs: Any) -> Future[R]:
        """Submits a call, which may start a process."""
        with _signals_blocked():
            return super().submit(fn, *args, **kwargs)


def start_worker() -> None:
    """Initialises a worker process: it ends with its parent, and leaves Ctrl-C to it.

    On SIGTERM the function that is being called is interrupted by `SystemExit`, so that it removes
    its temporary files.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        # A SIGTERM that arrived during the start of this process ends it here, silently.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _END_SIGNALS)
    signal.signal(signal.SIGTERM, _exit_on_sigterm)
    if (parent := parent_process()) is not None:
        Thread(target=_exit_after, args=(parent,), daemon=True).start()


def _exit_on_sigterm(signum: int, _frame: object) -> None:
    _terminating.set()
    raise SystemExit(128 + signum)


def _exit_after(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)  # a parent that was killed could not end its workers


@contextmanager
def executor(workers: Workers) -> Iterator[Executor]:
    """Creates an executor, and shut it down at the end of the context.

    On an exception in the context, Ctrl-C included, running cases are terminated and all others
    are cancelled.

    Args:
        workers: 1 for this process, more for local processes, or the address of a scheduler. For a
            cluster, all paths that are sent must be absolute.

    Yields:
        The executor.

    Raises:
        FseftError: No scheduler responds at the address, or it has no suitable workers.
    """
    if isinstance(workers, str):
        with _cluster(workers) as pool:
            yield pool
    elif workers <= 1:
        yield InlineExecutor()
    else:
        with _process_pool(workers) as pool:
            yield pool


@contextmanager
def _process_pool(workers: int) -> Iterator[Executor]:
    # Spawned, since forking a process in which torch has started threads may deadlock.
    pool = _WorkerPool(workers, mp_context=get_context("spawn"), initializer=start_worker)
    try:
        yield pool
    except BaseException:
        _terminate_workers(pool)
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _terminate_workers(pool: ProcessPoolExecutor) -> None:
    # Private; `terminate_workers` of Python 3.14 leaves no time for removing temporary files.
    processes = list((pool._processes or {}).values())
    for process in processes:
        process.terminate()
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.join(_GRACE_S)
        if process.is_alive():
            process.kill()


@contextmanager
def _cluster(address: str) -> Iterator[Executor]:
    try:
        from distributed import Client
    except ImportError as error:
        cause = "a cluster requires dask, which is not installed"
        raise FseftError(cause, hint="Run pip install 'fseft[cluster]'.") from error
    if ":" not in address:
        cause = f"{address!r} is not the address of a dask scheduler"
        raise FseftError(cause, hint="Write for example tcp://10.0.0.1:8786.")
    try:
        client = Client(address, timeout=_TIMEOUT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise FseftError(
            f"no dask scheduler responds at {address}",
            hint="Start one with `dask scheduler` and use the address that it prints.",
        ) from error
    with client:
        _check_workers(client, address)
        # Not pure: dask would return the cached result of an earlier call with the same arguments,
        # although the files may have changed.
        yield client.get_executor(pure=False)


def _check_workers(client: Any, address: str) -> None:
    hint = f"Start some with `dask worker {address} --nworkers N --nthreads 1`."
    try:
        client.wait_for_workers(1, timeout=_TIMEOUT_S)
    except TimeoutError as error:
        raise FseftError(f"the scheduler at {address} has no workers", hint=hint) from error
    if any(threads > 1 for threads in client.nthreads().values()):
        cause = f"a worker of the scheduler at {address} runs several cases in one process"
        raise FseftError(cause, hint=hint)


def each_case(
    function: Callable[[T], R],
    items: Iterable[tuple[str, T]],
    *,
    workers: Workers = 1,
    catch: type[E] = FseftError,  # type: ignore[assignment]
) -> Iterator[tuple[str, R | E]]:
    """Calls a function with every item and yields the results as they complete.

    Args:
        function: A module-level function of one item.
        items: Pairs of case name and item. A single worker draws the next pair after each case.
        workers: Number of local processes, or the address of a scheduler.
        catch: The exceptions of the function that are yielded instead of a result; any other one
            is raised.

    Yields:
        The case name, and the result or exception; a `FseftError` names the case.

    Raises:
        FseftError: A worker was killed, most often because memory ran out, or the cluster is gone.

    Examples:
        >>> list(each_case(len, [("a", "liver"), ("b", "spleen")]))
        [('a', 5), ('b', 6)]
    """
    with executor(workers) as pool:
        for case, future in _completed(pool, function, items):
            yield case, _outcome(case, future, catch)


@dataclass(frozen=True)
class _Logged:
    """The result of a case in another process, and the log records of this case."""

    result: Any
    records: list[LogRecord]


def _call_in_worker(function: Callable[[T], Any], item: T) -> _Logged:
    """Calls a function in a worker process, and collects its log records for the main process."""
    if _terminating.is_set():  # a case that was queued before the worker was terminated
        raise CancelledError
    with captured_records() as records:
        result = function(item)
    return _Logged(result, records)


def _completed(
    pool: Executor, function: Callable[[T], R], items: Iterable[tuple[str, T]]
) -> Iterator[tuple[str, Future[Any]]]:
    """Submits all items, and yields the futures as they complete."""
    if isinstance(pool, InlineExecutor):
        for case, item in items:
            yield case, pool.submit(function, item)
        return
    call: Callable[[T], Any] = function
    if not isinstance(pool, ThreadPoolExecutor):  # whose threads log as this one does
        call = partial(_call_in_worker, function)
    futures = {pool.submit(call, item): case for case, item in items}
    for future in as_completed(futures):
        yield futures[future], future


def _outcome(case: str, future: Future[Any], catch: type[E]) -> Any:
    """Returns the result of a case or its exception, and replay the log records of its worker."""
    try:
        result = future.result()
    except Exception as error:
        if isinstance(error, CancelledError):
            hint = "Start it again, and run again."
            raise FseftError("the cluster is gone", case=case, hint=hint) from error
        if isinstance(error, MemoryError):
            cause = f"the memory is too small ({summarise_exception(error)})"
            raise FseftError(cause, case=case, hint="Use fewer `workers`.") from error
        if _is_worker_killed(error):
            cause = "the worker was killed, most likely because memory ran out"
            raise FseftError(cause, case=case, hint="Use fewer `workers`.") from error
        if not isinstance(error, catch):
            raise
        return error.located(case=case) if isinstance(error, FseftError) else error
    if not isinstance(result, _Logged):
        return result
    replay(result.records)
    return result.result


def _is_worker_killed(error: Exception) -> bool:
    killed_by_dask = type(error).__name__ == _KILLED_BY_DASK
    return killed_by_dask or isinstance(error, BrokenExecutor)


def map_cases(
    function: Callable[[T], R],
    items: Mapping[str, T],
    *,
    workers: Workers = 1,
    progress: Callable[[str], None] | None = None,
) -> dict[str, R]:
    """Calls a function with every item and returns the results in the order of the items.

    After a `FseftError` the other cases are still tried, so that their results are stored.

    Args:
        function: A module-level function of one item.
        items: The item of each case, by case name.
        workers: Number of local processes, or the address of a scheduler.
        progress: Called with the case name after each case.

    Raises:
        FseftError: The first error of a case, with the number of others; or as for `each_case`.

    Examples:
        >>> map_cases(len, {"a": "liver", "b": "spleen"})
        {'a': 5, 'b': 6}
    """
    with executor(workers if isinstance(workers, str) else min(workers, len(items))) as pool:
        return _collect(pool, function, items, progress)


def map_in_threads(function: Callable[[T], R], items: Mapping[str, T]) -> dict[str, R]:
    """Maps as `map_cases` in threads, for functions that release the GIL, such as hashing.

    Args:
        function: Function of one item.
        items: The item of each case, by case name.

    Returns:
        The results by case name, in the order of the items.

    Raises:
        FseftError: The first error of a case, with the number of others.
    """
    with ThreadPoolExecutor(default_workers()) as pool:
        return _collect(pool, function, items)


def _collect(
    pool: Executor,
    function: Callable[[T], R],
    items: Mapping[str, T],
    progress: Callable[[str], None] | None = None,
) -> dict[str, R]:
    results: dict[str, R] = {}
    errors: list[FseftError] = []
    for case, future in _completed(pool, function, items.items()):
        outcome = _outcome(case, future, FseftError)
        if isinstance(outcome, FseftError):
            errors.append(outcome)
        else:
            results[case] = outcome
        if progress is not None:
            progress(case)
    if errors:
        raise _combined(errors)
    return {case: results[case] for case in items}


def _combined(errors: list[FseftError]) -> FseftError:
    """Returns the first error, with the names of the other cases that failed."""
    first, *others = errors
    if not others:
        return first
    names = [str(error.case) for error in others[:_MAX_NAMED]]
    if len(others) > _MAX_NAMED:
        names.append("...")
    cause = f"{first.cause} ({pluralise(len(others), 'more case')} failed: {', '.join(names)})"
    combined = FseftError(cause, hint=first.hint, case=first.case, file=first.file)
    combined.__cause__ = first
    return combined
