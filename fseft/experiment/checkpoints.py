"""Checkpoints of a training under way: written atomically, read without unpickling code."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from fseft.errors import FseftError
from fseft.workspace import atomic_write

if TYPE_CHECKING:
    from pathlib import Path


FACTS = "facts"
"""Key of a state: what the training was asked for, in words."""


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a state; the one before stays until this one is whole."""
    content = io.BytesIO()
    torch.save(state, content)
    with atomic_write(path) as temporary:
        temporary.write_bytes(content.getbuffer())  # torch's own writer hides that the disk is full


def load_checkpoint(path: Path, *, mmap: bool = False) -> dict[str, Any]:
    """Read a state back; with `mmap`, tensors only when they are used.

    Raises:
        FseftError: The file is damaged.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise FseftError(
            f"the checkpoint cannot be read ({type(error).__name__})",
            file=path,
            hint="Delete it, to go on from the one before or to start anew.",
        ) from error
    return state


@dataclass(frozen=True)
class CheckpointFolder:
    """The last few states of a training, `checkpoint-<epoch>.pt` in a folder."""

    folder: Path
    keep: int = 1

    def save(self, state: dict[str, Any], epoch: int) -> None:
        """Write a state, then remove those that are too old or of an earlier training."""
        save_checkpoint(self.folder / f"checkpoint-{epoch:06}.pt", state)
        found = self._found()
        now = found.index(self.folder / f"checkpoint-{epoch:06}.pt")
        for path in (*found[: max(0, now + 1 - self.keep)], *found[now + 1 :]):
            path.unlink()

    def load(self) -> dict[str, Any] | None:
        """The newest state, if there is one.

        Raises:
            FseftError: It is damaged.
        """
        found = self._found()
        return load_checkpoint(found[-1]) if found else None

    def facts(self) -> dict[str, str] | None:
        """What the newest was made with, read without its tensors; None where there is none.

        Raises:
            FseftError: It is damaged.
        """
        found = self._found()
        facts: dict[str, str] | None = (
            load_checkpoint(found[-1], mmap=True).get(FACTS, {}) if found else None
        )
        return facts

    def clear(self) -> None:
        """Remove all, and what a kill amid a save has left."""
        for path in (*self._found(), *self.folder.glob(".tmp-*-checkpoint-*.pt")):
            path.unlink()

    def _found(self) -> list[Path]:
        return sorted(self.folder.glob("checkpoint-*.pt"))
