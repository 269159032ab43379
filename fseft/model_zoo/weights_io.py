"""Files of weights: safetensors and PyTorch, read without executing code by default."""

from __future__ import annotations

import os
import re
import zipfile
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fseft.errors import FseftError, pluralise
from fseft.experiment.checkpoints import check_records

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

_CHECKPOINTS = (".pt", ".pth", ".ckpt", ".bin", ".model")
_MAX_NAMED = 3  # functions that an error lists
_LENGTH_BYTES, _MAX_HEADER_BYTES = 8, 100_000_000  # of safetensors


def read_weights(path: Path, *, allow_pickle: bool = False) -> Any:
    """Reads a file of weights.

    Tensors are memory-mapped where the format permits: keep the file as long as they are used.

    Args:
        path: A safetensors file or one of `torch.save`, distinguished by content.
        allow_pickle: Whether the file may execute code, as pickles can.

    Returns:
        Tensors by name, or the nested content of a training checkpoint.

    Raises:
        FseftError: The file is missing, damaged, of another format, or would execute code.
    """
    if path.is_dir():
        raise FseftError("is a folder", file=path, hint="Pass the file of weights in it.")
    if not path.is_file():
        raise FseftError("the file does not exist", file=path, hint="Check the path.")
    if path.stat().st_size == 0:
        raise FseftError("is empty", file=path, hint="Download it again.")
    if _is_safetensors(path):
        return _read_safetensors(path)
    with _unzipped(path) as file:
        return _read_torch(file, allow_pickle=allow_pickle)


def write_weights(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes a safetensors file without copying the tensors in memory; not atomic.

    Args:
        path: The file, which is replaced.
        tensors: Weights by name, of any shape.

    Raises:
        OSError: The disk is full, or the folder cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path.touch()
    mode = path.stat().st_mode
    try:
        save_file(_without_shared_memory(tensors), path)
    except SafetensorError as error:
        match = re.search(r"os error (\d+)", str(error))
        if match is None:
            raise
        number = int(match[1])
        raise OSError(number, os.strerror(number)) from error
    path.chmod(mode)  # safetensors denies access to the group


def _without_shared_memory(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that share no memory, as safetensors requires."""
    uses = Counter(tensor.untyped_storage().data_ptr() for tensor in tensors.values())
    separate = {}
    for name, tensor in tensors.items():
        is_shared = uses[tensor.untyped_storage().data_ptr()] > 1
        separate[name] = tensor.clone() if is_shared else tensor.contiguous()
    return separate


def _is_safetensors(path: Path) -> bool:
    """Whether a file starts with the length of a JSON object, and the object."""
    start = _read_start(path, _LENGTH_BYTES + 1)
    if len(start) <= _LENGTH_BYTES or start[_LENGTH_BYTES:] != b"{":
        return False
    return int.from_bytes(start[:_LENGTH_BYTES], "little") < _MAX_HEADER_BYTES


def _read_start(path: Path, count: int) -> bytes:
    with path.open("rb") as file:
        return file.read(count)


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise FseftError(
            f"is a damaged safetensors file ({error})", file=path, hint="Download it again."
        ) from error


@contextmanager
def _unzipped(path: Path) -> Iterator[Path]:
    """Yields the only checkpoint of an archive, unpacked for the time; other files unchanged.

    Raises:
        FseftError: The archive contains no checkpoint, or several.
    """
    if not zipfile.is_zipfile(path) or _is_torch_zip(path):
        yield path
        return
    with _open_zip(path) as archive:
        members = [name for name in archive.namelist() if name.lower().endswith(_CHECKPOINTS)]
        if len(members) != 1:
            raise FseftError(
                f"is an archive with {pluralise(len(members), 'checkpoint')}",
                file=path,
                hint="Unpack it, and pass the file of weights.",
            )
        with TemporaryDirectory() as folder:
            yield Path(archive.extract(members[0], folder))


def _open_zip(path: Path) -> zipfile.ZipFile:
    """Opens an archive.

    Raises:
        FseftError: Its directory is damaged.
    """
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, UnicodeDecodeError, NotImplementedError, OSError) as error:
        cause = f"is a damaged archive ({error})"
        raise FseftError(cause, file=path, hint="Download it again.") from error


def _is_torch_zip(path: Path) -> bool:
    with _open_zip(path) as archive:
        names = archive.namelist()
    return any(name.endswith("/data.pkl") for name in names)


def _is_stored(path: Path) -> bool:
    """Whether the records of a file of `torch.save` are not compressed, as a memory map needs."""
    if not zipfile.is_zipfile(path):
        return False
    with _open_zip(path) as archive:
        types = {record.compress_type for record in archive.infolist()}
    return types == {zipfile.ZIP_STORED}


def _read_torch(path: Path, *, allow_pickle: bool) -> Any:
    if allow_pickle:
        return _load(path, weights_only=False)
    with torch.serialization.safe_globals(_numpy_scalars()):
        unsafe = _unsafe_globals(path)
        if unsafe:
            more = len(unsafe) - _MAX_NAMED
            suffix = f" and {more} more" if more > 0 else ""
            raise FseftError(
                f"would execute code from {', '.join(unsafe[:_MAX_NAMED])}{suffix}",
                file=path,
                hint="If you trust its source, repeat with allow-pickle, or use a safetensors "
                "file.",
            )
        return _load(path, weights_only=True)


def _load(path: Path, *, weights_only: bool) -> Any:
    try:
        check_records(path)
        return torch.load(
            path, map_location="cpu", weights_only=weights_only, mmap=_is_stored(path)
        )
    except Exception as error:  # unpickling fails in any way
        reason, remedy = _explain(path, error)
        raise FseftError(
            f"cannot be read as a file of weights ({reason})", file=path, hint=remedy
        ) from error


def _explain(path: Path, error: Exception) -> tuple[str, str]:
    """Reason why a file cannot be read, and the remedy."""
    start = _read_start(path, 200).lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return (
            "it is a web page",
            "Download the file itself; its owner's page may require a login.",
        )
    if start.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS", "Download the file itself by `git lfs pull`."
    if code := re.search(r"GLOBAL (\S+)", str(error)):
        return (
            f"it would execute code from {code[1]}",
            "If you trust its source, repeat with allow-pickle, or use a safetensors file.",
        )
    if isinstance(error, ImportError):
        return str(error), "Install the package, or use a safetensors file."
    if (
        isinstance(error, EOFError)
        or "EOF" in str(error)
        or (start[:2] == b"pk" and not zipfile.is_zipfile(path))
    ):
        return "the file is incomplete", "Download it again."
    return "it is damaged, or has another format", "Download it again."


def _unsafe_globals(path: Path) -> list[str]:
    """Functions that a pickle would call, except those of tensors and plain numbers."""
    with suppress(Exception):  # reading the file then raises the error, with its cause
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    return []


def _numpy_scalars() -> list[Any]:
    """Scalars of NumPy, which older programs saved as scores, also by their names in NumPy 1."""
    core = np._core.multiarray  # type: ignore[attr-defined]
    kinds = {
        type(np.dtype(kind)) for kind in ("float64", "float32", "float16", "int64", "int32", "bool")
    }
    return [
        (core.scalar, "numpy.core.multiarray.scalar"),
        (core._reconstruct, "numpy.core.multiarray._reconstruct"),
        core.scalar,
        core._reconstruct,
        np.ndarray,
        np.dtype,
        *kinds,
    ]
