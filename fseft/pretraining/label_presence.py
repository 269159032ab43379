"""Structures that each case annotates: a missing label means absent, or not annotated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast, get_args

from fseft.documents import read_json
from fseft.errors import FseftError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from fseft.schemas import Dataset, Fingerprint

MissingLabel = Literal["absent", "unannotated"]
"""Meaning of a structure that a label file does not contain."""

FORMER_RULES: dict[str, MissingLabel] = {"not-there": "absent", "not-drawn": "unannotated"}

DECLARATION = "annotated.json"
"""File in a dataset's folder: case -> annotated structures. It takes precedence over any rule."""


Structures = frozenset[str]


def drawn_structures(fingerprint: Fingerprint) -> dict[str, Structures]:
    """Structures with voxels in each labelled case, by the dataset's own names."""
    return {case.name: frozenset(case.volumes_mm3) for case in fingerprint.cases if case.labelled}


def annotated_structures(
    dataset: Dataset, fingerprint: Fingerprint, rule: MissingLabel
) -> dict[str, Structures]:
    """Structures that each labelled case annotates, by the dataset's own names.

    Args:
        dataset: The dataset; lists the masks, where each structure has a separate file.
        fingerprint: Fingerprint of the dataset, with the structures drawn in each case.
        rule: `absent`: a structure drawn in any case is annotated in all, except where masks are
            separate files, which must exist. `unannotated`: only where it is drawn.

    Raises:
        FseftError: The declaration is invalid, or names an unknown case or structure.
    """
    drawn = drawn_structures(fingerprint)
    in_any_case = frozenset().union(*drawn.values())
    masks = _masks(dataset)
    declared = _read_declaration(dataset.folder, fingerprint)
    annotated = {}
    for case, structures in drawn.items():
        default = structures
        if rule == "absent":
            default = in_any_case & masks.get(case, in_any_case)
        annotated[case] = declared.get(case, default) | structures
    return annotated


def _masks(dataset: Dataset) -> dict[str, Structures]:
    """Structures with a mask file, possibly empty, of each case that has no label map."""
    names = {value: name for name, value in dataset.labels.items()}
    labels = {case.name: case.label for case in dataset.cases}
    return {
        case: frozenset(names[value] for value in label)
        for case, label in labels.items()
        if isinstance(label, dict)
    }


def check_missing_label(rules: Mapping[str, str]) -> dict[str, MissingLabel]:
    """Checks rules for missing labels, and translates those of earlier versions.

    Args:
        rules: Dataset -> rule; the empty name stands for all other datasets.

    Raises:
        FseftError: A rule is unknown.

    Examples:
        >>> check_missing_label({"": "not-drawn", "livers": "absent"})
        {'': 'unannotated', 'livers': 'absent'}
    """
    checked: dict[str, MissingLabel] = {}
    choices = get_args(MissingLabel)
    for dataset, written in rules.items():
        rule = FORMER_RULES.get(written, written)
        if rule not in choices:
            cause = f"unknown rule for missing labels {rule!r}"
            raise FseftError(cause, hint=did_you_mean(rule, choices))
        checked[dataset] = cast("MissingLabel", rule)
    return checked


def missing_label_rules(
    rules: Mapping[str, MissingLabel], datasets: Sequence[str]
) -> dict[str, MissingLabel]:
    """Rule of each dataset; `absent` unless the request says otherwise.

    Args:
        rules: Rules of a request, see `PretrainRequest.missing_label`.
        datasets: Names of the datasets.

    Raises:
        FseftError: A rule names an unknown dataset.
    """
    unknown = [name for name in rules if name and name not in datasets]
    if unknown:
        cause = f"a rule for missing labels names an unknown dataset {unknown[0]!r}"
        raise FseftError(cause, hint=did_you_mean(unknown[0], datasets))
    default = rules.get("", "absent")
    return {name: rules.get(name, default) for name in datasets}


def _read_declaration(folder: Path, fingerprint: Fingerprint) -> Mapping[str, Structures]:
    path = folder / DECLARATION
    if not path.is_file():
        return {}
    hint = 'Write {"CASE": ["STRUCTURE", ...], ...}.'
    content: dict[str, list[str]] = read_json(
        path, dict[str, list[str]], name="list of annotated structures", hint=hint
    )
    declared = {case: frozenset(names) for case, names in content.items()}
    structures = sorted(frozenset().union(*declared.values()))
    _check_names("case", list(declared), [case.name for case in fingerprint.cases], path)
    _check_names("structure", structures, list(fingerprint.labels), path)
    return declared


def _check_names(kind: str, names: Sequence[str], choices: Sequence[str], path: Path) -> None:
    unknown = [name for name in names if name not in choices]
    if unknown:
        hint = did_you_mean(unknown[0], choices)
        raise FseftError(f"unknown {kind} {unknown[0]!r}", file=path, hint=hint)
