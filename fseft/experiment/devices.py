"""Which device to compute on."""

from __future__ import annotations

from fseft.errors import FseftError


def select_device(wanted: str) -> str:
    """`cpu` or `cuda`; `auto` takes the GPU where there is one.

    Raises:
        FseftError: CUDA asked for and absent, or no such device.
    """
    import torch

    available = torch.cuda.is_available()
    if wanted == "auto":
        return "cuda" if available else "cpu"
    if wanted == "cuda" and not available:
        raise FseftError(
            "--device cuda: this machine or this torch has no CUDA",
            hint="Use --device cpu or auto.",
        )
    if wanted not in ("cpu", "cuda"):
        raise FseftError(
            f"--device {wanted}: there is no such device", hint="Use auto, cpu or cuda."
        )
    return wanted
