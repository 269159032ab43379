"""Temporary folders and caches that a lock marks as used, so that the rest can be removed.

A lock is held on a file `.lock` by `flock`, which ends with its process, also across containers and
machines that share the file system. Where a file system has no locks, nothing is removed.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK = ".lock"
_PREFIX, _DIGITS = ".fseft-tmp-", 12
_NEW, _OLD = "new", "old"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of Linux


@contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """Creates a folder with a unique name, and locks it until it is removed."""
    while True:
        # Unique among threads, processes and machines that share the folder.
        folder = parent / f"{_PREFIX}{secrets.token_hex(_DIGITS // 2)}"
        folder.mkdir()
        descriptor = _lock(folder / LOCK)
        if (folder / LOCK).is_file():  # otherwise taken for a leftover before it was locked
            break
    try:
        yield folder
    finally:
        try:
            _remove(folder)
        finally:
            if descriptor is not None:
                os.close(descriptor)


@contextmanager
def staging(parent: Path) -> Iterator[Path]:
    """Creates the folder `.fseft-tmp-<random>/new`, for what `move_into_place` moves to a folder.

    What is left there at the end of the context is removed.

    Args:
        parent: The folder in which, or below which, the targets lie.

    Raises:
        OSError: The folder cannot be written.
    """
    with temporary_folder(parent) as folder:
        (folder / _NEW).mkdir()
        yield folder / _NEW


@contextmanager
def temporary_path(target: Path) -> Iterator[Path]:
    """Yields a path for the new content of a file or folder, which `move_into_place` moves.

    The path is `.fseft-tmp-<random>/new/<name>` in the folder of the target. What is left there at
    the end of the context is removed.

    Raises:
        OSError: The folder cannot be written.
    """
    with staging(target.parent) as folder:
        yield folder / target.name


def move_into_place(temporary: Path, target: Path) -> None:
    """Moves a complete file or folder to its target; a previous one is replaced in one step.

    Where the file system cannot exchange two folders, the previous one is moved away first, and
    `remove_leftovers` moves it back if the process is killed at this moment.

    Args:
        temporary: Path from `temporary_path`, or below the folder of `staging`; it may have
            the previous content afterwards.
        target: The file or folder.

    Raises:
        OSError: The target cannot be replaced.
    """
    try:
        temporary.replace(target)
    except OSError:  # of a folder with content; on Windows, of any folder
        if not (temporary.is_dir() and target.is_dir()):
            raise
        if not _exchange(temporary, target):
            _move_both(temporary, target)


def _move_both(temporary: Path, target: Path) -> None:
    """Moves the previous folder away, and the new one to its place."""
    old = temporary.parents[1] / _OLD / target.name
    old.parent.mkdir(exist_ok=True)
    target.rename(old)
    try:
        temporary.rename(target)
    except OSError:
        old.rename(target)
        raise


def _exchange(first: Path, second: Path) -> bool:
    """Exchanges two paths in one step; returns False where the system cannot."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):  # no such function, or no C library to load
        return False
    paths = os.fsencode(first), os.fsencode(second)
    return bool(rename(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) == 0)


def remove_folder(folder: Path) -> None:
    """Removes a folder in one step: no other process finds a part of it.

    Raises:
        OSError: The folder does not exist, or cannot be moved.
    """
    with temporary_folder(folder.parent) as temporary:
        folder.rename(temporary / folder.name)


def remove_leftovers(parent: Path) -> None:
    """Removes the temporary folders in a folder that killed processes have left.

    A folder that had been moved away by `move_into_place` without its replacement is moved back.
    A folder without a lock file stays, unless it is empty: it may be of another program.
    """
    for folder in sorted(parent.glob(_PREFIX + "[0-9a-f]" * _DIGITS)):
        descriptor = _lock(folder / LOCK, wait=False)
        if descriptor is None:  # in use, or killed before it was locked
            with suppress(OSError):
                folder.rmdir()
            continue
        try:
            for old in (folder / _OLD).glob("*"):
                if not (parent / old.name).exists():
                    with suppress(OSError):
                        old.rename(parent / old.name)
            _remove(folder)
        finally:
            os.close(descriptor)


def _remove(folder: Path) -> None:
    """Removes a temporary folder, its lock file last: a killed removal leaves a known leftover."""
    with suppress(OSError):
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != LOCK:
                path.unlink()
        (folder / LOCK).unlink(missing_ok=True)
        folder.rmdir()


@contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Creates a cache folder if it is missing, and protects it from `remove_unused`.

    The modification time of its `.lock` is that of its last use.

    Raises:
        OSError: The folder cannot be written.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _lock(folder / LOCK, shared=True)
        if (folder / LOCK).is_file():  # otherwise removed by another process a moment ago
            break
    try:
        with suppress(OSError):  # of another user
            os.utime(folder / LOCK)
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def last_use(folder: Path) -> float:
    """Returns the time of the last use of a cache folder, in seconds; 0 if it was never used."""
    try:
        return (folder / LOCK).stat().st_mtime
    except OSError:
        return 0


@contextmanager
def unused(folder: Path) -> Iterator[bool]:
    """Locks a cache folder if no process uses it; yields whether that is so.

    A folder without a `.lock` counts as used: it may be of another program.
    """
    descriptor = _lock(folder / LOCK, wait=False)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def remove_unused(folder: Path) -> bool:
    """Removes a cache folder unless a process uses it; returns whether it was removed."""
    with unused(folder) as is_unused, suppress(OSError):  # removed by another process
        if is_unused:
            remove_folder(folder)
            return True
    return False


def _lock(file: Path, *, shared: bool = False, wait: bool = True) -> int | None:
    """Locks a file; returns a descriptor whose closing ends the lock.

    Returns None if another process holds the lock or removes the file, or where the file system has
    no locks. The file is created if the lock is to be awaited.

    Raises:
        OSError: The folder of the file cannot be written, and the lock was to be awaited.
    """
    try:
        descriptor = os.open(file, os.O_RDWR | (os.O_CREAT if wait else 0), 0o666)
    except OSError as error:
        if wait and not isinstance(error, FileNotFoundError):
            raise
        return None
    if fcntl is not None:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        with suppress(OSError):
            fcntl.flock(descriptor, kind if wait else kind | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), file.stat()):
                return descriptor
    os.close(descriptor)
    return None
