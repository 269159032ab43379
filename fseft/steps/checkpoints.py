"""Checkpoints of a training under way: written atomically, read without unpickling code."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import torch

from fseft.errors import FseftError
from fseft.store import replacing

if TYPE_CHECKING:
    from pathlib import Path


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a state; the one before stays until this one is whole."""
    content = io.BytesIO()
    torch.save(state, content)
    with replacing(path) as temporary:
        temporary.write_bytes(content.getbuffer())  # torch's own writer hides that the disk is full


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a state back.

    Raises:
        FseftError: The file is damaged.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise FseftError(
            f"the checkpoint cannot be read ({type(error).__name__})",
            file=path,
            hint="Delete it to start anew.",
        ) from error
    return state
