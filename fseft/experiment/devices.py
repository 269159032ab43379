"""The device to compute on."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

from fseft.errors import FseftError

_DRIVERS = ("nvcuda.dll",) if os.name == "nt" else ("libcuda.so.1", "libcuda.so")
_ROCM = Path("/dev/kfd")  # PyTorch calls the GPUs of AMD "cuda" too


def select_device(device: str) -> str:
    """Selects the device to compute on.

    Args:
        device: "cpu", "cuda", or "auto" for the GPU if one is available.

    Returns:
        "cpu" or "cuda".

    Raises:
        FseftError: CUDA is requested and not available, or the device is unknown.
    """
    if device == "cpu":
        return device
    available = _has_cuda()
    if device == "auto":
        return "cuda" if available else "cpu"
    if device == "cuda" and not available:
        raise FseftError(
            "the device cuda was requested, and this machine or this torch has no CUDA",
            hint="Use the device cpu or auto.",
        )
    if device != "cuda":
        raise FseftError(f"unknown device {device!r}", hint="Use auto, cpu or cuda.")
    return device


def _has_cuda() -> bool:
    """Asks PyTorch for a GPU, unless there is no driver of one: its import takes seconds."""
    if "torch" not in sys.modules and not (_ROCM.exists() or any(map(_loads, _DRIVERS))):
        return False
    import torch

    return torch.cuda.is_available()


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
