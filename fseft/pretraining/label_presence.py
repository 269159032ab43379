"""Which structures each case annotates: what is not in its label file is either not there, or was never drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast, get_args

from pydantic import TypeAdapter, ValidationError

from fseft.errors import FseftError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from fseft.schemas import Dataset, Fingerprint

AbsentMeans = Literal["not-there", "not-drawn"]
DECLARATION = "annotated.json"
"""In a dataset's folder: case -> the structures that were looked for in it. It goes before any rule."""

_DECLARED = TypeAdapter(dict[str, list[str]])


def drawn_structures(fingerprint: Fingerprint) -> dict[str, frozenset[str]]:
    """Labelled case -> the structures, by the dataset's own names, of which there are voxels: perhaps none."""
    return {case.name: frozenset(case.volumes_mm3) for case in fingerprint.cases if case.labelled}


def annotated_structures(
    folder: Path, dataset: Dataset, fingerprint: Fingerprint, rule: AbsentMeans
) -> dict[str, frozenset[str]]:
    """Labelled case -> the structures that count in it, by the dataset's own names.

    Args:
        folder: Of the dataset.
        dataset: Says which masks there are, where each structure has one of its own.
        fingerprint: Of the dataset; says what is drawn in each case.
        rule: `not-there`: a structure that is drawn in any case counts in all, since where it is missing there is
            none; but where structures have masks, only with a mask. `not-drawn`: it counts only where it is drawn.

    Raises:
        FseftError: The declaration is none, or names a case or structure that the dataset has not.
    """
    drawn = drawn_structures(fingerprint)
    everywhere = frozenset().union(*drawn.values())
    masks = _masks(dataset)
    looked_for = {
        case: here if rule == "not-drawn" else everywhere & masks.get(case, everywhere)
        for case, here in drawn.items()
    }
    declared = _declared(folder, fingerprint)
    return {case: declared.get(case, looked_for[case]) | here for case, here in drawn.items()}


def _masks(dataset: Dataset) -> dict[str, frozenset[str]]:
    """Case -> the structures that it has masks of, perhaps empty ones; without cases that have one label map."""
    names = {value: name for name, value in dataset.labels.items()}
    labels = {case.name: case.label for case in dataset.cases}
    return {
        case: frozenset(names[value] for value in label)
        for case, label in labels.items()
        if isinstance(label, dict)
    }


def absent_means(given: Sequence[str], datasets: list[str]) -> dict[str, AbsentMeans]:
    """Dataset -> its rule, from `RULE` for all and `DATASET=RULE` for one.

    Raises:
        FseftError: There is no such rule or dataset.
    """
    rules: dict[str, AbsentMeans] = dict.fromkeys(datasets, "not-there")
    for text in sorted(
        given, key=lambda text: "=" in text
    ):  # what is said of one goes before what is said of all
        name, _, rule = text.rpartition("=")
        known = get_args(AbsentMeans)
        if rule not in known:
            raise FseftError(
                f"--absent-means {text}: there is no {rule!r}", hint=did_you_mean(rule, known)
            )
        if name and name not in rules:
            raise FseftError(
                f"--absent-means {text}: no dataset {name!r} is given",
                hint=did_you_mean(name, datasets),
            )
        rules.update(dict.fromkeys([name] if name else datasets, cast("AbsentMeans", rule)))
    return rules


def _declared(folder: Path, fingerprint: Fingerprint) -> Mapping[str, frozenset[str]]:
    path = folder / DECLARATION
    if not path.is_file():
        return {}
    try:
        found = {
            case: frozenset(names)
            for case, names in _DECLARED.validate_json(path.read_bytes(), strict=True).items()
        }
    except ValidationError as error:
        raise FseftError(
            f"is no declaration of what was drawn ({error.errors()[0]['msg']})",
            file=path,
            hint='Write {"CASE": ["STRUCTURE", ...], ...}.',
        ) from error
    cases = [case.name for case in fingerprint.cases]
    for kind, names, known in (
        ("case", list(found), cases),
        ("structure", sorted(frozenset().union(*found.values())), list(fingerprint.labels)),
    ):
        if unknown := [name for name in names if name not in known]:
            raise FseftError(
                f"there is no {kind} {unknown[0]!r}",
                file=path,
                hint=did_you_mean(unknown[0], known),
            )
    return found
