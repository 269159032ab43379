"""Medical Segmentation Decathlon: `dataset.json` with `modality` and a list `training` of image and label."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fseft.builtin.readers.folders import DECLARATION, declaration, meanings, named
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
"""Cases 501 to 600 (Ji et al. 2022, arXiv:2206.08023); its dataset.json has those below, of CT, in the same list."""


class Reader:
    """Reader `decathlon`: an image with several channels is one 4D file."""

    def detects(self, folder: Path) -> bool:
        """Whether there is a `dataset.json` with a list of training cases."""
        content = declaration(folder)
        return isinstance(content.get("training"), list) and "modality" in content

    def read(self, folder: Path) -> Dataset:
        """List the cases in `training`; a file that is listed but missing counts as not there.

        Raises:
            FseftError: `dataset.json` is wrong, or lists a case twice.
        """
        content, path = declaration(folder), folder / DECLARATION
        cases: dict[str, Case] = {}
        for entry in content["training"]:
            case = _case(entry, folder)
            if case.name in cases:
                raise FseftError(
                    "is listed twice", case=case.name, file=path, hint="Remove one entry."
                )
            cases[case.name] = case
        labels = _labels(content.get("labels", {}), path)
        channels = _by_number(content["modality"], path)
        others = [
            name for name in sorted(cases) if channels == ("CT",) and _AMOS_MR.fullmatch(name)
        ]
        some = f"{pluralise(len(others), 'case')} of MR, which AMOS22 lists as CT ({', '.join(others[:1])}, ...)"
        return Dataset(
            name=folder.name,
            reader="decathlon",
            channels=channels,
            labels=labels,
            meanings=meanings(content, labels),
            cases=tuple(cases[name] for name in sorted(cases.keys() - set(others))),
            warnings=(f"{some}: left out; make a dataset of them",) if others else (),
        )


def _case(entry: Any, folder: Path) -> Case:
    from fseft.volume.image import case_name

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


def _by_number(names: Mapping[str, str], path: Path) -> tuple[str, ...]:
    if not isinstance(names, dict) or not names or not all(str(key).isdigit() for key in names):
        hint = 'Write it as {"0": "CT"}.'
        raise FseftError("has a modality that is not numbered from 0 on", file=path, hint=hint)
    return tuple(str(names[key]) for key in sorted(names, key=int))


def _labels(labels: Mapping[str, Any], path: Path) -> dict[str, int]:
    """Structure names to values, background left out."""
    if not all(
        str(value).isdigit() and isinstance(name, str)
        for value, name in named(labels, path).items()
    ):
        hint = 'Write them as {"0": "background", "1": "liver"}.'
        raise FseftError("has labels that are not numbered", file=path, hint=hint)
    return {name: int(value) for value, name in labels.items() if int(value) != 0}
