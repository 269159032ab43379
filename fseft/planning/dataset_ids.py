"""Finds datasets by the ids and names of nnU-Net, below the folder of `nnUNet_raw`."""

from __future__ import annotations

import os
import re
from pathlib import Path

from fseft.errors import FseftError

VARIABLE = "nnUNet_raw"
"""Environment variable that names the folder of all datasets, as nnU-Net reads it."""
_NAME = re.compile(r"(\d{1,3})|Dataset(\d{3})_\S+")


def find_dataset_folder(dataset: Path) -> Path:
    """Returns the folder of a dataset that is given by its folder, or as nnU-Net names it.

    Args:
        dataset: A folder, which goes first; or an id such as `102`, or a name such as
            `Dataset102_Livers`, of a dataset in the folder of `nnUNet_raw`.

    Returns:
        The folder; what is neither an id nor a name is returned unchanged.

    Raises:
        FseftError: `nnUNet_raw` is not set, or no dataset there has the id or name, or several do.
    """
    match = _NAME.fullmatch(str(dataset))
    if match is None or dataset.exists():
        return dataset
    number, raw = int(match[1] or match[2]), _raw_folder(dataset)
    folders = sorted(path for path in raw.glob(f"Dataset{number:03d}_*") if path.is_dir())
    matching = folders if match[1] else [path for path in folders if path.name == dataset.name]
    if len(matching) == 1:
        return matching[0]
    names = ", ".join(path.name for path in folders)
    if matching:
        cause = f"several datasets have the id {dataset}: {names}"
        raise FseftError(cause, file=raw, hint="Give the name of one of them.")
    hint = f"Did you mean {names}?" if names else "Give the id or name of a dataset there."
    raise FseftError(f"has no dataset {dataset}", file=raw, hint=hint)


def _raw_folder(dataset: Path) -> Path:
    """Returns the folder of all datasets, which exists."""
    value = os.environ.get(VARIABLE, "")
    if not value:
        raise FseftError(
            "does not exist",
            file=dataset,
            hint=f"Give the folder of a dataset, or set {VARIABLE} to find it by its nnU-Net id.",
        )
    raw = Path(value).expanduser()
    if not raw.is_dir():
        raise FseftError("is not a folder", file=raw, hint=f"Correct the variable {VARIABLE}.")
    return raw
