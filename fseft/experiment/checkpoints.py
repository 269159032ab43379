"""Training checkpoints: written atomically, read without unpickling code."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel, ConfigDict, Field

from fseft.documents import validate
from fseft.errors import FseftError
from fseft.workspace import atomic_write

if TYPE_CHECKING:
    from pathlib import Path


CHECKPOINTS = f"checkpoint-{'[0-9]' * 6}.pt"
"""Pattern of the names of files in a `CheckpointFolder`."""
FACTS = "facts"
"""Key of a state: the settings of the training, as text by name."""


_HINT = "Delete it to resume from the previous one, or to start over."


class _Optimizer(BaseModel):
    state: dict[int, dict[str, Any]]
    param_groups: list[dict[str, Any]]


class _TrainingState(BaseModel):
    """A result of `fseft.learn.training_loop.Training.state`."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    tensors: dict[str, torch.Tensor]
    method: dict[str, Any]
    optimizer: _Optimizer
    average: list[torch.Tensor]
    losses: list[float]
    step: int = Field(ge=0)
    seconds: float = Field(ge=0)
    stopped_by: str
    facts: dict[str, str] = {}


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
        FseftError: The file is damaged, or is not a checkpoint of a training.
    """
    try:
        if not mmap:
            check_records(path)
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise FseftError(
            f"the checkpoint cannot be read ({type(error).__name__})",
            file=path,
            hint=_HINT,
        ) from error
    validate(state, _TrainingState, name="checkpoint of a training", hint=_HINT, file=path)
    return state


def check_records(path: Path) -> None:
    """Compares the records of a file of `torch.save` with their CRC, which torch does not do.

    Files that were saved without CRC, and those of formats before PyTorch 1.6, are not checked.

    Raises:
        zipfile.BadZipFile: A record is damaged.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as file:
        damaged = file.testzip() if any(record.CRC for record in file.infolist()) else None
    if damaged:
        raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")


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
        """Writes the state of an epoch, and removes older ones and those of later epochs.

        Later epochs are left over from another training.

        Args:
            state: Tensors and plain data by name.
            epoch: Number of the epoch, which names the file.

        Raises:
            FseftError: The folder cannot be written, or the disk is full.
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

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob(CHECKPOINTS))
