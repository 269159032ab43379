"""Training checkpoints: written atomically, read without unpickling code."""

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
"""Key of a state: the settings of the training, as text by name."""


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes a training state; an existing file is replaced once the new one is complete.

    Args:
        path: The file.
        state: Tensors and plain data by name.

    Raises:
        FseftError: The folder cannot be written, or the disk is full.
    """
    content = io.BytesIO()
    torch.save(state, content)
    with atomic_write(path) as temporary:
        temporary.write_bytes(content.getbuffer())  # torch's own writer hides that the disk is full


def load_checkpoint(path: Path, *, mmap: bool = False) -> dict[str, Any]:
    """Reads a training state.

    Args:
        path: The file.
        mmap: Read tensors from the file when they are accessed.

    Returns:
        The state, with tensors on the CPU.

    Raises:
        FseftError: The file is damaged.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise FseftError(
            f"the checkpoint cannot be read ({type(error).__name__})",
            file=path,
            hint="Delete it to resume from the previous one, or to start over.",
        ) from error
    return state


@dataclass(frozen=True)
class CheckpointFolder:
    """The latest checkpoints of a training, `checkpoint-<epoch>.pt` in a folder.

    Attributes:
        folder: The folder.
        keep: Number of checkpoints to keep.
    """

    folder: Path
    keep: int = 1

    def save(self, state: dict[str, Any], epoch: int) -> None:
        """Writes the state of an epoch, and remove older ones and those of later epochs.

        Later epochs are left over from another training.
        """
        path = self.folder / f"checkpoint-{epoch:06}.pt"
        save_checkpoint(path, state)
        paths = self._paths()
        end = paths.index(path) + 1
        kept = paths[max(0, end - self.keep) : end]
        for other in paths:
            if other not in kept:
                other.unlink()

    def load(self) -> dict[str, Any] | None:
        """Reads the latest state; None without a checkpoint.

        Raises:
            FseftError: The file is damaged.
        """
        paths = self._paths()
        return load_checkpoint(paths[-1]) if paths else None

    def facts(self) -> dict[str, str] | None:
        """Reads the settings of the latest state without its tensors; None without a checkpoint.

        Raises:
            FseftError: The file is damaged.
        """
        paths = self._paths()
        if not paths:
            return None
        facts: dict[str, str] = load_checkpoint(paths[-1], mmap=True).get(FACTS, {})
        return facts

    def clear(self) -> None:
        """Removes all checkpoints."""
        for path in self._paths():
            path.unlink()

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("checkpoint-*.pt"))
