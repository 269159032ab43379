"""Files of weights: safetensors, or PyTorch's from elsewhere, of which no code is run unasked."""

from __future__ import annotations

import os
import re
import zipfile
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fseft.errors import FseftError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

_SHOWN = 3  # names of code in an error


def read_weights(path: Path, *, allow_pickle: bool = False) -> Any:
    """What a file of weights holds: tensors by name, or what a training program saved around them.

    Tensors are read from the file as they are used, where its format lets them be; it must stay as long.

    Args:
        path: A safetensors file, or one of `torch.save`, told apart by content.
        allow_pickle: Let the file run code of its own, as pickles may; else only data are read.

    Raises:
        FseftError: The file is missing, damaged, of another kind, or would run code.
    """
    if path.is_dir():
        raise FseftError("is a folder", file=path, hint="Give the file with the weights in it.")
    if not path.is_file():
        raise FseftError("there is no such file", file=path, hint="Check the path.")
    if path.stat().st_size == 0:
        raise FseftError("is empty", file=path, hint="Get it again.")
    return _safetensors(path) if _is_safetensors(path) else _torch(path, allow_pickle=allow_pickle)


def write_weights(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file, without a copy of the tensors in memory; not atomic.

    Raises:
        OSError: The disk is full, or the folder cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path.touch()
    rights = path.stat().st_mode
    try:
        save_file(_apart(tensors), path)
    except SafetensorError as error:
        told = re.search(r"os error (\d+)", str(error))
        if told is None:
            raise
        raise OSError(int(told[1]), os.strerror(int(told[1]))) from error
    path.chmod(rights)  # safetensors closes its files to the group


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, each in memory of its own."""
    users = Counter(tensor.untyped_storage().data_ptr() for tensor in tensors.values())
    return {
        name: tensor.contiguous()
        if users[tensor.untyped_storage().data_ptr()] == 1
        else tensor.clone()
        for name, tensor in tensors.items()
    }


def _is_safetensors(path: Path) -> bool:
    """Its head is the length of a JSON object, then the object."""
    head = _head(path, 9)
    return len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") < 100_000_000


def _head(path: Path, count: int) -> bytes:
    with path.open("rb") as file:
        return file.read(count)


def _safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise FseftError(
            f"is a damaged safetensors file ({error})", file=path, hint="Get it again."
        ) from error


def _torch(path: Path, *, allow_pickle: bool) -> Any:
    if allow_pickle:
        return _loaded(path, weights_only=False)
    with torch.serialization.safe_globals(_numpy_numbers()):
        if unsafe := _unsafe(path):
            more = f" and {len(unsafe) - _SHOWN} more" if len(unsafe) > _SHOWN else ""
            raise FseftError(
                f"would run code from {', '.join(unsafe[:_SHOWN])}{more}",
                file=path,
                hint="If you trust its source, allow pickle; else get it as safetensors.",
            )
        return _loaded(path, weights_only=True)


def _loaded(path: Path, *, weights_only: bool) -> Any:
    try:
        return torch.load(
            path, map_location="cpu", weights_only=weights_only, mmap=zipfile.is_zipfile(path)
        )
    except Exception as error:  # unpickling fails in any way
        why, remedy = _unreadable(path, error)
        raise FseftError(
            f"is no file of weights that can be read ({why})", file=path, hint=remedy
        ) from error


def _unreadable(path: Path, error: Exception) -> tuple[str, str]:
    """Why a file cannot be read, and what to do about it."""
    start = _head(path, 200).lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return (
            "it is a web page",
            "Get the file itself; its owner's page may ask for a login first.",
        )
    if start.startswith(b"version https://git-lfs"):
        return "it only points to one, for Git LFS", "Get the file itself, with `git lfs pull`."
    if isinstance(error, ImportError):
        return str(error), "Install that, or get it as safetensors."
    if (
        isinstance(error, EOFError)
        or "EOF" in str(error)
        or (start[:2] == b"pk" and not zipfile.is_zipfile(path))
    ):
        return "the file is cut off", "Get it again."
    return "it is damaged, or of another kind", "Get it again."


def _unsafe(path: Path) -> list[str]:
    """What the file would call, besides tensors and plain numbers."""
    with suppress(Exception):  # a file that cannot be scanned is told by the reader, with its cause
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    return []


def _numpy_numbers() -> list[Any]:
    """NumPy's numbers, which older programs saved as scores; NumPy 2 has moved what the old files name."""
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
