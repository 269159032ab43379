"""Medical Segmentation Decathlon: `dataset.json` with `modality` and the list `training`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fseft.builtin.readers.folders import DECLARATION, checked_labels, declaration, meanings
from fseft.errors import FseftError, pluralise
from fseft.plugin import Case, Dataset, ReaderSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

SPEC = ReaderSpec(
    name="decathlon",
    factory="fseft.builtin.readers.decathlon:Reader",
    summary="Medical Segmentation Decathlon: dataset.json with a list of image and label pairs",
    reference="http://medicaldecathlon.com",
)


_AMOS_MR = re.compile(r"amos_0(5(?!00)\d\d|600)")
"""MR cases 501 to 600 of AMOS22 (arXiv:2206.08023), listed among its CT cases in dataset.json."""


class Reader:
    """Reader `decathlon`; an image with several channels is one 4D file."""

    def detects(self, folder: Path) -> bool:
        """Returns whether the folder has a `dataset.json` with a list of training cases."""
        content = declaration(folder)
        return isinstance(content.get("training"), list) and "modality" in content

    def read(self, folder: Path) -> Dataset:
        """Lists the cases in `training`; listed files that do not exist are ignored.

        Raises:
            FseftError: `dataset.json` is wrong, or lists a case twice.
        """
        content, path = declaration(folder), folder / DECLARATION
        cases: dict[str, Case] = {}
        for entry in content["training"]:
            case = _case(entry, folder)
            if case.name in cases:
                hint = "Remove one entry."
                raise FseftError("is listed twice", case=case.name, file=path, hint=hint)
            cases[case.name] = case
        labels = _labels(content.get("labels", {}), path)
        channels = _channels(content["modality"], path)
        is_ct = channels == ("CT",)
        mr_cases = [name for name in sorted(cases) if is_ct and _AMOS_MR.fullmatch(name)]
        return Dataset(
            name=folder.name,
            reader="decathlon",
            channels=channels,
            labels=labels,
            meanings=meanings(content, labels),
            cases=tuple(cases[name] for name in sorted(cases.keys() - set(mr_cases))),
            warnings=_warn_mr(mr_cases),
        )


def _case(entry: Any, folder: Path) -> Case:
    from fseft.volume.image_files import case_name

    pair = {"image": entry} if isinstance(entry, str) else entry
    if not isinstance(pair, dict) or not isinstance(pair.get("image"), str):
        hint = 'Write entries as {"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}.'
        raise FseftError(f"has the training entry {entry!r}", file=folder / DECLARATION, hint=hint)
    image = folder / pair["image"]
    label = folder / pair["label"] if pair.get("label") else None
    return Case(
        name=case_name(Path(image.name)),
        images=(image,) if image.exists() else (),
        label=label if label is not None and label.exists() else None,
    )


def _channels(names: Mapping[str, str], path: Path) -> tuple[str, ...]:
    """Returns the channel names in the order of their numbers."""
    valid = isinstance(names, dict) and names and all(str(key).isdigit() for key in names)
    if not valid:
        hint = 'Write it as {"0": "CT"}.'
        raise FseftError("has a modality that is not numbered from 0 on", file=path, hint=hint)
    numbers = sorted(names, key=int)
    return tuple(str(names[number]) for number in numbers)


def _labels(labels: Mapping[str, Any], path: Path) -> dict[str, int]:
    """Returns structure name -> value, without background."""
    values = {}
    for value, name in checked_labels(labels, path).items():
        if not str(value).isdigit() or not isinstance(name, str):
            hint = 'Write them as {"0": "background", "1": "liver"}.'
            raise FseftError("has labels that are not numbered", file=path, hint=hint)
        if int(value) != 0:
            values[name] = int(value)
    return values


def _warn_mr(cases: list[str]) -> tuple[str, ...]:
    if not cases:
        return ()
    subject = pluralise(len(cases), "case")
    warning = (
        f"{subject} of MR, which AMOS22 lists as CT ({cases[0]}, ...): excluded; make a separate "
        "dataset of them"
    )
    return (warning,)
