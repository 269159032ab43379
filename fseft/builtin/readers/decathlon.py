"""Medical Segmentation Decathlon: `dataset.json` with `modality` and the list `training`."""

from __future__ import annotations

import re
from pathlib import PureWindowsPath
from typing import TYPE_CHECKING

from fseft import dataset_json
from fseft.builtin.readers.folders import listed_file, meanings, missing_files_error
from fseft.dataset_json import DecathlonDeclaration, TrainingPair, read_declaration
from fseft.errors import FseftError, pluralise
from fseft.plugin import Case, Dataset, ReaderSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

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
        content = read_declaration(folder)
        return isinstance(content.get("training"), list) and "modality" in content

    def read(self, folder: Path) -> Dataset:
        """Lists the cases in `training`; listed labels without an image are skipped.

        Raises:
            FseftError: `dataset.json` is wrong, lists a case twice, or no image exists.
        """
        path = folder / dataset_json.NAME
        declared: DecathlonDeclaration = dataset_json.check_declaration(
            read_declaration(folder), DecathlonDeclaration, path
        )
        cases = _cases(declared.training, path)
        labels = dataset_json.decathlon_labels(declared.labels, path)
        channels = _channels(declared.modality, path)
        is_ct = channels == ("CT",)
        mr_cases = [name for name in sorted(cases) if is_ct and _AMOS_MR.fullmatch(name)]
        return Dataset(
            name=folder.name,
            reader="decathlon",
            channels=channels,
            labels=labels,
            meanings=meanings(declared.name, labels),
            cases=tuple(cases[name] for name in sorted(cases.keys() - set(mr_cases))),
            warnings=_warn_mr(mr_cases),
        )


def _cases(pairs: Sequence[TrainingPair], path: Path) -> dict[str, Case]:
    """Returns the listed cases by name."""
    cases: dict[str, Case] = {}
    for pair in pairs:
        case = _case(pair, path.parent)
        if case.name in cases:
            hint = "Remove one entry."
            raise FseftError("is listed twice", case=case.name, file=path, hint=hint)
        cases[case.name] = case
    if cases and not any(case.images for case in cases.values()):
        raise missing_files_error(path, [pair.image for pair in pairs])
    return cases


def _case(pair: TrainingPair, folder: Path) -> Case:
    from fseft.volume.image_files import case_name

    image = listed_file(folder, pair.image)
    return Case(
        name=case_name(PureWindowsPath(pair.image)),
        images=(image,) if image else (),
        label=listed_file(folder, pair.label) if pair.label else None,
    )


def _channels(names: Mapping[str, str], path: Path) -> tuple[str, ...]:
    """Returns the channel names in the order of their numbers."""
    if not all(key.isdigit() for key in names):
        hint = 'Write it as {"0": "CT"}.'
        raise FseftError("has a modality that is not numbered from 0 on", file=path, hint=hint)
    numbers = sorted(names, key=int)
    return tuple(names[number] for number in numbers)


def _warn_mr(cases: list[str]) -> tuple[str, ...]:
    if not cases:
        return ()
    subject = pluralise(len(cases), "case")
    warning = (
        f"{subject} of MR, which AMOS22 lists as CT ({cases[0]}, ...): excluded; make a separate "
        "dataset of them"
    )
    return (warning,)
