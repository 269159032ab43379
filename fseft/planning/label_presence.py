"""Structures that each case annotates: a missing label means absent, or not annotated."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, cast, get_args

from fseft import dataset_json
from fseft.documents import read_json, validate
from fseft.errors import FseftError, did_you_mean
from fseft.schemas import MissingLabel
from fseft.volume._logging import warn_once

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from fseft.schemas import Dataset, Fingerprint

FORMER_RULES: dict[str, MissingLabel] = {"not-there": "absent", "not-drawn": "unannotated"}

DECLARATION, TABLE = "annotated.json", "annotations.csv"
"""Files in a dataset's folder that list the annotated structures of cases, as does `annotated` in
its `dataset.json`. A list takes precedence over any rule."""
_DECLARED = "annotated"
_YES, _NO = {"1", "yes", "y", "true", "x"}, {"0", "no", "n", "false", ""}


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
    rules: Mapping[str, MissingLabel], datasets: Mapping[str, MissingLabel]
) -> dict[str, MissingLabel]:
    """Rule of each dataset: that of the request, or else its own.

    Args:
        rules: Rules of a request, see `PretrainRequest.missing_label`.
        datasets: Name -> own rule of each dataset.

    Raises:
        FseftError: A rule names an unknown dataset.

    Examples:
        >>> missing_label_rules({"x": "unannotated"}, {"x": "absent", "y": "absent"})
        {'x': 'unannotated', 'y': 'absent'}
    """
    unknown = [name for name in rules if name and name not in datasets]
    if unknown:
        cause = f"a rule for missing labels names an unknown dataset {unknown[0]!r}"
        raise FseftError(cause, hint=did_you_mean(unknown[0], list(datasets)))
    return {name: rules.get(name, rules.get("", own)) for name, own in datasets.items()}


def incomplete_annotations(
    dataset: Dataset, fingerprint: Fingerprint, cases: Collection[str], structures: Collection[str]
) -> dict[str, Structures]:
    """Returns the structures that some cases annotate, by the rule of the dataset.

    Args:
        dataset: The dataset.
        fingerprint: Fingerprint of the dataset.
        cases: Names of the cases.
        structures: Names of the structures.

    Returns:
        Case -> those of the structures that it annotates; empty if every case annotates all.

    Raises:
        FseftError: As for `annotated_structures`.
    """
    annotated = annotated_structures(dataset, fingerprint, dataset.missing_label)
    chosen = {case: annotated[case] & frozenset(structures) for case in cases}
    is_complete = all(names == frozenset(structures) for names in chosen.values())
    return {} if is_complete else chosen


def assumed_absent(
    dataset: Dataset, fingerprint: Fingerprint, cases: Collection[str]
) -> dict[str, int]:
    """Counts the cases in which each structure is background only by the rule `absent`.

    Args:
        dataset: The dataset.
        fingerprint: Fingerprint of the dataset.
        cases: Names of the cases; those whose annotated structures are stated do not count: by a
            list, or by the files of their masks.

    Raises:
        FseftError: As for `annotated_structures`.
    """
    if dataset.missing_label != "absent":
        return {}
    stated = {*_masks(dataset), *_read_declaration(dataset.folder, fingerprint)}
    drawn = drawn_structures(fingerprint)
    unstated = [case for case in cases if case not in stated]
    return {name: sum(name not in drawn[case] for case in unstated) for name in fingerprint.labels}


def _read_declaration(folder: Path, fingerprint: Fingerprint) -> Mapping[str, Structures]:
    """Returns the structures that a dataset lists for some of its cases."""
    structures = list(fingerprint.labels)
    path, declared = listed_structures(folder, structures)
    if path is not None:
        _check_names("case", list(declared), [case.name for case in fingerprint.cases], path)
    return declared


def listed_structures(
    folder: Path, structures: Sequence[str]
) -> tuple[Path | None, dict[str, Structures]]:
    """Reads the list of the annotated structures of some cases in the folder of a dataset.

    Args:
        folder: The folder.
        structures: Names of all structures of the dataset.

    Returns:
        The file that states the list, None if there is none, and case -> annotated structures.

    Raises:
        FseftError: Two files state a list, a list is invalid, or it names an unknown structure.
    """
    sources = _lists(folder, structures)
    if len(sources) > 1:
        cause = f"{' and '.join(path.name for path in sources)} both list annotated structures"
        raise FseftError(cause, file=folder, hint="Keep one of the lists.")
    for path, lists in sources.items():
        declared = {case: frozenset(names) for case, names in lists.items()}
        named = sorted(frozenset().union(*declared.values()))
        _check_names("structure", named, structures, path)
        return path, declared
    return None, {}


def _lists(folder: Path, structures: Sequence[str]) -> dict[Path, Mapping[str, Sequence[str]]]:
    """Returns the lists of annotated structures, by the file that states each."""
    sources: dict[Path, Mapping[str, Sequence[str]]] = {}
    schema, hint = dict[str, list[str]], 'Write {"CASE": ["STRUCTURE", ...], ...}.'
    name = "list of annotated structures"
    own, declared, table = folder / DECLARATION, folder / dataset_json.NAME, folder / TABLE
    if own.is_file():
        sources[own] = read_json(own, schema, name=name, hint=hint)
    listed = dataset_json.read_declaration(folder).get(_DECLARED)
    if listed is not None:
        sources[declared] = validate(listed, schema, name=name, hint=hint, file=declared)
    if table.is_file() and (rows := _own_rows(table, structures)):
        sources[table] = _read_table(table, rows, structures)
    return sources


def _own_rows(path: Path, structures: Sequence[str]) -> list[list[str]]:
    """Returns the rows of a table of annotations; none if it is some other file of this name.

    A table of which a column is `case`, or a structure, is meant.
    """
    rows = _rows(path)
    header = rows[0] if rows else []
    if {"case", *structures}.isdisjoint(header):
        expected = ", ".join(("case", *structures))
        warn_once(
            f"{path}: ignored, as no column is called case or like a structure. A table of "
            f"annotated structures has the columns {expected}"
        )
        return []
    return rows


def _read_table(
    path: Path, rows: Sequence[Sequence[str]], structures: Sequence[str]
) -> dict[str, list[str]]:
    """Reads a table with a row per case, and a column per structure: yes or no."""
    header, *others = rows
    hint = (
        f"Write the header {','.join(('case', *structures))} and then rows such as case_7,yes,no."
    )
    if header[0] != "case":
        raise FseftError("has no column 'case' at first", file=path, hint=hint)
    _check_names("structure", header[1:], structures, path, hint)
    annotated: dict[str, list[str]] = {}
    for case, *cells in others:
        values = [cell.lower() for cell in cells]
        if len(values) != len(header) - 1 or not set(values) <= _YES | _NO:
            cause = f"the row of {case!r} is not yes or no for each of {len(header) - 1} structures"
            raise FseftError(cause, file=path, hint="Write yes or no in each cell.")
        if case in annotated:
            raise FseftError(f"has two rows of {case!r}", file=path, hint="Keep one of them.")
        pairs = zip(header[1:], values, strict=True)
        annotated[case] = [name for name, value in pairs if value in _YES]
    return annotated


def _rows(path: Path) -> list[list[str]]:
    """Reads the rows of a table that are not empty, separated by commas or semicolons."""
    # A foreign table may have any encoding: a name that it damages is an unknown structure.
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    delimiter = ";" if lines and ";" in lines[0] else ","
    try:
        rows = list(csv.reader(lines, delimiter=delimiter))
    except csv.Error as error:
        hint = "Repair it, or give it another name."
        raise FseftError(f"is not a table ({error})", file=path, hint=hint) from error
    return [[cell.strip() for cell in row] for row in rows if any(row)]


def _check_names(
    kind: str, names: Sequence[str], choices: Sequence[str], path: Path, otherwise: str = ""
) -> None:
    """Refuses an unknown name, and suggests those like it."""
    unknown = [name for name in names if name not in choices]
    if unknown:
        hint = " ".join(filter(None, (did_you_mean(unknown[0], choices), otherwise)))
        raise FseftError(f"unknown {kind} {unknown[0]!r}", file=path, hint=hint)
