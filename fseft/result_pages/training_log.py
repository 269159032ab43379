"""The log of a training, `log.jsonl` in the folder of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from fseft.documents import parse_json
from fseft.errors import FseftError
from fseft.schemas import FrozenModel

if TYPE_CHECKING:
    from pathlib import Path

NAME = "log.jsonl"


class LoggedEpoch(FrozenModel):
    """An epoch: its loss, and the Dice of each structure on crops of the training cases."""

    epoch: int
    loss: float
    learning_rate: float
    seconds: float
    dice: dict[str, float] = Field(default={})


def read_log(folder: Path) -> tuple[LoggedEpoch, ...]:
    """Returns the epochs of a run; none if it has no log.

    Args:
        folder: Folder of the run.

    Raises:
        FseftError: The log is damaged.
    """
    path = folder / NAME
    if not path.is_file():
        return ()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        hint = "Check its permissions, or remove it."
        raise FseftError(f"cannot be read ({error})", file=path, hint=hint) from error
    hint = "Remove the file: a report needs no log."
    epochs: list[LoggedEpoch] = [
        parse_json(line, LoggedEpoch, name="log of a training", hint=hint, file=path)
        for line in lines
    ]
    return tuple(epochs)
