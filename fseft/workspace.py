"""Where things lie: every path, every content key, every atomic write. Nothing else builds a path."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import time
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from fseft.errors import FseftError
from fseft.schemas import Document

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

D = TypeVar("D", bound=Document)

_SETTLED_NS = 5_000_000_000


@dataclass(frozen=True)
class Workspace:
    """The workspace: a folder with `fingerprints/`, `preprocessed/` and `runs/` in it."""

    root: Path

    def fingerprint(self, dataset: str) -> Path:
        """`fingerprints/<dataset>/fingerprint.json`."""
        return self.root / "fingerprints" / dataset / "fingerprint.json"

    def plan(self, dataset: str, model: str) -> Path:
        """`fingerprints/<dataset>/plan.<model>.json`."""
        return self.root / "fingerprints" / dataset / f"plan.{_in_path(model)}.json"

    def preprocessed(self, dataset: str, key: str) -> Path:
        """`preprocessed/<dataset>/<key>/`: one folder per case; models that share spacing share the key."""
        return self.root / "preprocessed" / dataset / key

    def features(self, dataset: str, key: str) -> Path:
        """`preprocessed/<dataset>/features-<key>/`: features of a frozen network, which black-box methods share."""
        return self.root / "preprocessed" / dataset / f"features-{key}"

    def run(self, dataset: str, model: str, method: str, k: int, seed: int) -> Path:
        """`runs/<dataset>/<model>/<method>-k<k>-s<seed>/`."""
        return self.root / "runs" / dataset / _in_path(model) / f"{_in_path(method)}-k{k}-s{seed}"

    def model(self, name: str) -> Path:
        """`models/<name>/`: a foundation model that this workspace alone has."""
        return self.root / "models" / name

    def imported(self, package: str, name: str) -> Path:
        """`<package>/<name>/` in the user's cache of imported models, which all workspaces share."""
        return model_cache() / package / name

    def models(self) -> list[str]:
        """Names of the foundation models of this workspace."""
        return sorted(path.parent.name for path in (self.root / "models").glob("*/model.json"))


def model_cache() -> Path:
    """`FSEFT_MODELS`, or `fseft/models` in the user's cache folder."""
    from pathlib import Path

    if chosen := os.environ.get("FSEFT_MODELS"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fseft" / "models"


def _in_path(name: str) -> str:
    """A name that may say its distribution (`package:name`), for file systems that take no colon."""
    return name.replace(":", "--")


def digest(*parts: object, length: int = 16) -> str:
    """Content key: the start of the sha256 of JSON-able parts (keys sorted) or bytes."""
    sha = hashlib.sha256()
    for part in parts:
        data = (
            part
            if isinstance(part, bytes)
            else json.dumps(part, sort_keys=True, default=str).encode()
        )
        sha.update(data)
        sha.update(b"\0")
    return sha.hexdigest()[:length]


def file_digest(path: Path) -> str:
    """The sha256 of a file's bytes, as 64 hex digits; what this process has read is not read again, unless it changed.

    A file that was written just now is always read: a second change may not show in its time.
    """
    state = path.stat()
    if time.time_ns() - state.st_mtime_ns < _SETTLED_NS:
        return _digest_of(path)
    return _digest_once(path.absolute(), state.st_mtime_ns, state.st_size, state.st_ino)


@lru_cache(maxsize=1 << 16)
def _digest_once(path: Path, *state: int) -> str:
    del state
    return _digest_of(path)


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        native = hasattr(hashlib, "file_digest")  # from Python 3.11 on
        return hashlib.file_digest(file, "sha256").hexdigest() if native else _sha(file)


def _sha(file: object) -> str:
    sha = hashlib.sha256()
    while chunk := file.read(1 << 20):  # type: ignore[attr-defined]
        sha.update(chunk)
    return sha.hexdigest()


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary sibling of `path`, for a file or a folder; rename it to `path` when all went well.

    A reader sees the old content or the whole new one. On an error the temporary is removed.

    Raises:
        FseftError: The folder cannot be written, or the disk is full.
    """
    # The temporary keeps the whole suffix: image writers choose the format by it.
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _sync(temporary)
        with _aside(path) if temporary.is_dir() else nullcontext():
            temporary.replace(path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            with suppress(OSError):  # the error that is on its way says more than a second one
                temporary.unlink()


@contextmanager
def _aside(folder: Path) -> Iterator[None]:
    """Move a folder out of the way, and remove it when its successor is in place."""
    old = folder.with_name(f".old-{os.getpid()}-{folder.name}")
    moved = folder.exists()
    if moved:
        folder.rename(old)
    yield
    if moved:
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Keep other processes, also on other machines, from what is done under the same path; the lock file stays.

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
    """Work in a folder in which no other process may do the same; `.lock` stays in it.

    Raises:
        FseftError: One does, or the folder cannot be written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        hint = "Wait until it ends, or give another name or folder."
        raise FseftError("another process is at work in it", file=folder, hint=hint) from error
    except OSError as error:
        raise write_error(folder, error) from error
    try:
        yield
    finally:
        lock.release()


def require_empty(folder: Path) -> None:
    """What is written must not mix with what is there.

    Raises:
        FseftError: The folder is there and holds something.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise FseftError("is not empty", file=folder, hint="Give a new folder.")


def write_error(path: Path, error: OSError) -> FseftError:
    """The user's view of an operating system error on writing `path`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FseftError("the disk is full", file=path, hint="Free some space and run again.")
    return FseftError(
        f"cannot be written ({error.strerror or error})",
        file=path,
        hint="Choose another folder or its rights.",
    )


def _sync(path: Path) -> None:
    files = [path] if path.is_file() else [item for item in path.rglob("*") if item.is_file()]
    for file in files:
        with file.open("rb") as handle:
            os.fsync(handle.fileno())


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_document(path: Path, document: Document) -> None:
    """Write a document as indented JSON, atomically."""
    write_text(path, document.model_dump_json(indent=2) + "\n")


def read_document(path: Path, kind: type[D]) -> D:
    """Read a document back.

    Raises:
        FseftError: The file is missing, is no JSON, or does not hold this kind of document.
    """
    name = re.sub(r"\B(?=[A-Z])", " ", kind.__name__).lower()
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise FseftError(
            f"there is no {name}", file=path, hint=f"Make the {name} first."
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"{part}: " for part in [".".join(map(str, first["loc"]))] if part)
        raise FseftError(
            f"is not a valid {name} ({where}{first['msg']})",
            file=path,
            hint="Delete it and make it again.",
        ) from error
