"""Paths of a workspace, content keys, and atomic writes. No other module builds these paths."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from fseft.documents import read_json
from fseft.errors import FseftError
from fseft.schemas import Document
from fseft.temporaries import (
    LOCK,
    move_into_place,
    remove_leftovers,
    staging,
    temporary_path,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

D = TypeVar("D", bound=Document)

_MIN_AGE_NS = 5_000_000_000
"""Age from which a file's modification time proves that it did not change, on any file system."""
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Workspace:
    """A folder with plans, preprocessed volumes, runs and models.

    Args:
        root: The folder; it need not exist.

    Examples:
        >>> workspace = Workspace(Path("work"))
        >>> workspace.run("livers", "suprem_unet", "lora", k=5, seed=0).as_posix()
        'work/runs/livers/suprem_unet/lora-k5-s0'
    """

    root: Path

    def fingerprint(self, dataset: str) -> Path:
        """Returns `fingerprints/<dataset>/fingerprint.json`."""
        return self.root / "fingerprints" / dataset / "fingerprint.json"

    def plan(self, dataset: str, model: str, name: str = "") -> Path:
        """Returns `fingerprints/<dataset>/plan.<model>.json`, or `plan.<model>.<name>.json`.

        Args:
            dataset: Name of the dataset.
            model: Name of the model.
            name: Name of an alternative plan; empty for the default one.
        """
        folder = self.root / "fingerprints" / dataset
        alternative = f".{name}" if name else ""
        return folder / f"plan.{_file_name(model)}{alternative}.json"

    def preprocessed(self, dataset: str, key: str) -> Path:
        """Returns `preprocessed/<dataset>/<key>/`, which has a folder for each case.

        Args:
            dataset: The dataset.
            key: The digest of the preprocessing, which models of the same spacing share.
        """
        return self.root / "preprocessed" / dataset / key

    def features(self, dataset: str, key: str) -> Path:
        """Returns `preprocessed/<dataset>/features-<key>/`, cached features of a network.

        Args:
            dataset: The dataset.
            key: The digest of network and preprocessing, which black-box methods share.
        """
        return self.root / "preprocessed" / dataset / f"features-{key}"

    def run(self, dataset: str, model: str, method: str, k: int, seed: int) -> Path:
        """Returns `runs/<dataset>/<model>/<method>-k<k>-s<seed>/`.

        Args:
            dataset: Name of the dataset.
            model: Name of the model.
            method: Name of the method.
            k: Number of training cases.
            seed: Seed of the run.
        """
        folder = self.root / "runs" / dataset / _file_name(model)
        name = f"{_file_name(method)}-k{k}-s{seed}"
        return folder / name

    def model(self, name: str) -> Path:
        """Returns `models/<name>/`, the folder of a foundation model of this workspace."""
        return self.root / "models" / name

    def imported(self, package: str, name: str) -> Path:
        """Returns `<package>/<name>/` in the user's model cache, which all workspaces share.

        Args:
            package: Name of the distribution that provides the model.
            name: Name of the model in it.
        """
        return model_cache() / package / name

    def models(self) -> list[str]:
        """Returns the names of the foundation models of this workspace, sorted."""
        return sorted(path.parent.name for path in (self.root / "models").glob("*/model.json"))


def model_cache() -> Path:
    """Returns the folder `FSEFT_MODELS`, or `fseft/models` in the user's cache folder."""
    if folder := os.environ.get("FSEFT_MODELS"):
        return Path(folder).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "fseft" / "models"


def _file_name(name: str) -> str:
    """Returns a name without colon, as in `package:name`, which some file systems reject."""
    return name.replace(":", "--")


def digest(*parts: object, length: int = 16) -> str:
    """Returns a content key: the start of the sha256 of the parts.

    Args:
        *parts: Bytes, or data that JSON can represent; the order of keys does not matter.
        length: Number of hexadecimal digits.

    Examples:
        >>> digest({"spacing": [1.0, 1.0, 2.0], "scheme": "ct"})
        '5bb58cac85d1f188'
    """
    sha = hashlib.sha256()
    for part in parts:
        if isinstance(part, bytes):
            sha.update(part)
        else:
            sha.update(json.dumps(part, sort_keys=True, default=str).encode())
        sha.update(b"\0")
    return sha.hexdigest()[:length]


def file_digest(path: Path) -> str:
    """Returns the sha256 of a file as 64 hexadecimal digits.

    A file is read once per process, unless its size or modification time changed. A file that was
    modified a moment ago is always read: its time may not show a second change.
    """
    state = path.stat()
    if time.time_ns() - state.st_mtime_ns < _MIN_AGE_NS:
        return _compute_digest(path)
    return _cached_digest(path.absolute(), state.st_mtime_ns, state.st_size, state.st_ino)


@lru_cache(maxsize=1 << 16)
def _cached_digest(path: Path, *state: int) -> str:
    del state  # a part of the key only
    return _compute_digest(path)


def _compute_digest(path: Path) -> str:
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            sha.update(chunk)
    return sha.hexdigest()


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Writes a file or folder under a temporary name, and renames it to `path` on success.

    Readers see the old content or the complete new content. After an exception the temporary file
    or folder is removed; that of a killed process is removed by the next one that writes to the
    same folder.

    Args:
        path: The file or folder to write; its parent is created.

    Yields:
        The temporary path, with the same name in another folder; it does not exist yet.

    Raises:
        FseftError: The folder cannot be written, or the disk is full.

    Examples:
        >>> with atomic_write(Path("scores.csv")) as temporary:  # doctest: +SKIP
        ...     temporary.write_text("case,dice")
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers_once(path.parent.absolute())
        with temporary_path(path) as temporary:
            yield temporary
            _sync(temporary)
            move_into_place(temporary, path)
    except OSError as error:
        raise write_error(path, error) from error


@contextmanager
def staging_folder(folder: Path) -> Iterator[Path]:
    """Creates a temporary folder in a folder, for files that are moved into it together.

    Raises:
        FseftError: The folder cannot be written, or the disk is full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with staging(folder) as new:
            yield new
    except OSError as error:
        raise write_error(folder, error) from error


@lru_cache(maxsize=1 << 12)
def _remove_leftovers_once(folder: Path) -> None:
    """Removes what killed processes have left, once per process: listing a folder takes time."""
    remove_leftovers(folder)


def _sync(path: Path) -> None:
    """Flushes a file, or all files of a folder, to the disk."""
    files = [path] if path.is_file() else [item for item in path.rglob("*") if item.is_file()]
    for file in files:
        with file.open("rb") as handle:
            os.fsync(handle.fileno())


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Waits for an exclusive lock on a path, among processes and machines.

    The lock file `.<name>.lock` stays in the folder.

    Raises:
        FseftError: The folder cannot be written.
    """
    from filelock import FileLock

    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise write_error(path, error) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Locks a folder against other processes that lock it; the file `.lock` stays in it.

    What killed processes have left in the folder is removed.

    Args:
        folder: The folder; it is created if missing.

    Raises:
        FseftError: Another process holds the lock, or the folder cannot be written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        hint = "Wait until it ends, or choose another name or folder."
        raise FseftError("in use by another process", file=folder, hint=hint) from error
    except OSError as error:
        raise write_error(folder, error) from error
    try:
        remove_leftovers(folder)
        yield
    finally:
        lock.release()


def require_folder(folder: Path) -> None:
    """Checks that a path is a folder, or free for a new one.

    Raises:
        FseftError: It is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise FseftError("is a file, not a folder", file=folder, hint="Choose a folder.")


def require_empty(folder: Path) -> None:
    """Checks that a folder is empty or missing.

    Raises:
        FseftError: The folder contains files.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise FseftError("is not empty", file=folder, hint="Choose a new folder.")


def write_error(path: Path, error: OSError) -> FseftError:
    """Returns the error for the user if the operating system cannot write `path`.

    Args:
        path: The file or folder.
        error: The error of the operating system.
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FseftError("the disk is full", file=path, hint="Free some space and run again.")
    return FseftError(
        f"cannot be written ({error.strerror or error})",
        file=path,
        hint="Choose another folder, or change its permissions.",
    )


def write_text(path: Path, text: str) -> None:
    """Writes a text file in UTF-8, atomically.

    Args:
        path: The file.
        text: Its new content.

    Raises:
        FseftError: As for `atomic_write`.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_document(path: Path, document: Document) -> None:
    """Writes a document as indented JSON, atomically.

    Args:
        path: The file.
        document: Its new content.

    Raises:
        FseftError: As for `atomic_write`.
    """
    write_text(path, document.model_dump_json(indent=2) + "\n")


def read_document(path: Path, kind: type[D]) -> D:
    """Reads a document from a JSON file.

    Args:
        path: The file.
        kind: The class of the document.

    Raises:
        FseftError: The file is missing, or does not contain a valid document of this class.
    """
    name = re.sub(r"\B(?=[A-Z])", " ", kind.__name__).lower()
    if not path.exists():
        cause = f"the {name} does not exist"
        raise FseftError(cause, file=path, hint=f"Create the {name} first.")
    document: D = read_json(path, kind, name=name, hint="Delete it and create it again.")
    return document
