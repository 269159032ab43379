"""The device to compute on."""

from __future__ import annotations

from fseft.errors import FseftError


def select_device(device: str) -> str:
    """Selects the device to compute on.

    Args:
        device: "cpu", "cuda", or "auto" for the GPU if one is available.

    Returns:
        "cpu" or "cuda".

    Raises:
        FseftError: CUDA is requested and not available, or the device is unknown.
    """
    import torch

    available = torch.cuda.is_available()
    if device == "auto":
        return "cuda" if available else "cpu"
    if device == "cuda" and not available:
        raise FseftError(
            "the device cuda was requested, and this machine or this torch has no CUDA",
            hint="Use the device cpu or auto.",
        )
    if device not in ("cpu", "cuda"):
        raise FseftError(f"unknown device {device!r}", hint="Use auto, cpu or cuda.")
    return device
