"""Read a dataset folder by the first reader that knows its layout, and tell what has no partner."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from typing import TYPE_CHECKING

from fseft.errors import FseftError, summarise_exception
from fseft.registry import PLUGIN_EXCEPTIONS, registry
from fseft.schemas import Dataset

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fseft.schemas import Case

LAST = "folders"
"""The reader that asks for the least, and therefore comes after all others."""

_LAYOUTS = (
    "Give one of: nnU-Net v2 (dataset.json with channel_names, imagesTr/CASE_0000.nii.gz, "
    "labelsTr/CASE.nii.gz); "
    "Medical Segmentation Decathlon (dataset.json with modality and training); "
    "TotalSegmentator (CASE/ct.nii.gz, CASE/segmentations/); a public dataset as its owner gives it; "
    "bare folders imagesTr and labelsTr with the same file names."
)
_LEAVE = "Leave its plugin out: `fseft -p no:NAME ...`; `fseft plugins` lists them."
_NAMED = 3  # cases that a warning names


def read_dataset(folder: Path, *, strict: bool = False) -> Dataset:
    """List the cases of a dataset; no image is opened.

    Args:
        folder: In a layout that a reader knows.
        strict: Refuse labels without an image and images without a label, instead of warning.

    Returns:
        The dataset, named after its folder. Labels without an image are left out, images without a label are
        kept as unlabelled cases.

    Raises:
        FseftError: The folder is missing, empty, of no known layout or broken, or `strict` finds a fault.
    """
    folder = _checked(folder)
    name = _reader(folder)
    found = registry().create("reader", name).read(folder)
    if not isinstance(found, Dataset):
        raise FseftError(
            f"the reader {name!r} gave a {type(found).__name__}, not a Dataset",
            file=folder,
            hint=_LEAVE,
        )
    alone = [case.name for case in found.cases if not case.images]
    cases = tuple(case for case in found.cases if case.images)
    if not cases:
        raise FseftError("has no image", file=folder, hint="Put images into imagesTr.")
    names = Counter(case.name for case in found.cases)
    if twice := [one for one, times in names.items() if times > 1]:
        cause = f"the reader {name!r} gave {names[twice[0]]} cases of one name"
        raise FseftError(
            cause, case=twice[0], file=folder, hint="Rename the files, or leave its plugin out."
        )
    warnings = (*found.warnings, *_odd(alone, cases))
    if strict and warnings:
        raise FseftError(
            warnings[0], file=folder, hint="Complete or remove them, or leave out --strict."
        )
    return found.model_copy(
        update={
            "name": _sanitised(folder.name),
            "reader": name,
            "cases": cases,
            "warnings": warnings,
        }
    )


def _checked(folder: Path) -> Path:
    if not folder.is_dir():
        cause = "is no folder" if folder.exists() else "there is no such folder"
        raise FseftError(cause, file=folder, hint="Give the folder of a dataset.")
    if not any(not item.name.startswith(".") for item in folder.iterdir()):
        raise FseftError("is empty", file=folder, hint=_LAYOUTS)
    return folder.resolve()


def _near(folder: Path) -> str:
    """The dataset that is one level off."""
    for other in (folder.parent, *sorted(path for path in folder.iterdir() if path.is_dir())):
        if _detected(other):
            return f"Did you mean {other}?"
    return ""


def _reader(folder: Path) -> str:
    """The name of the first reader that detects the folder.

    Raises:
        FseftError: None does.
    """
    if name := _detected(folder):
        return name
    raise FseftError(
        "is a dataset of no layout that is known", file=folder, hint=_near(folder) or _LAYOUTS
    )


def _detected(folder: Path) -> str | None:
    """The name of the first reader that knows the layout."""
    for name in sorted(registry().names("reader"), key=lambda name: (name == LAST, name)):
        try:
            if registry().create("reader", name).detects(folder):
                return name
        except FseftError as error:
            warnings.warn(str(error), stacklevel=2)
        except PLUGIN_EXCEPTIONS as error:  # a broken reader must not hide the ones that work
            message = f"the reader {name!r} failed ({summarise_exception(error)})"
            warnings.warn(message, stacklevel=2)
    return None


def _odd(alone: Sequence[str], cases: Sequence[Case]) -> list[str]:
    """What has no partner. A dataset without any label is meant to have none."""
    warnings = []
    if alone:
        what = "label has" if len(alone) == 1 else "labels have"
        warnings.append(f"{len(alone)} {what} no image ({some(alone)}): skipped")
    unlabelled = [case.name for case in cases if case.label is None]
    if unlabelled and len(unlabelled) < len(cases):
        what = "image has" if len(unlabelled) == 1 else "images have"
        warnings.append(
            f"{len(unlabelled)} {what} no label ({some(unlabelled)}): kept as unlabelled"
        )
    return warnings


def some(names: Sequence[str]) -> str:
    """The first few names."""
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


def _sanitised(name: str) -> str:
    """A folder name that is safe in any path and on any command line."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "dataset"
