"""The vocabulary of anatomical structures: canonical names, sides, part-of relations and synonyms.

The vocabulary is `structures.csv`, with one structure per row.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from fseft.errors import FseftError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

LEFT, RIGHT = "left", "right"
SIDES = {"l": LEFT, "lh": LEFT, "lt": LEFT, "r": RIGHT, "rh": RIGHT, "rt": RIGHT}

WORDS = {
    "cancer": "tumor",
    "tumour": "tumor",
    "tumours": "tumor",
    "tumors": "tumor",
    "pancreatic": "pancreas",
    "oesophagus": "esophagus",
    "vertebra": "vertebrae",
}
"""Words that are replaced wherever they occur in a name."""

GENERIC_NAME = re.compile(
    r"(class|label|structure|segment|region|roi)?_?\d+|foreground|organ|structure|roi|object"
)
"""Names that do not identify a structure, such as `class_1` or `foreground`."""
AMBIGUOUS_NAMES = frozenset(
    {"cyst", "lesion", "lesions", "mass", "metastasis", "nodule", "tumor", "vein", "vessel"}
)
"""Names that lack the organ."""

_TABLE = Path(__file__).with_name("structures.csv")


@dataclass(frozen=True)
class Structure:
    """A row of the vocabulary.

    Attributes:
        name: Canonical name, without a side.
        sides: `both`: a pair, of which every patient has both; `either`: a pair, of which each may
            be missing; empty: not a pair.
        part_of: Canonical name of the whole, possibly with a side; the halves of a pair are parts
            of the pair.
        aliases: Synonyms in canonical spelling, without a side.
        snomed: SNOMED CT code and meaning; of a finding, followed by `@` and the structure that it
            is in. Empty if SNOMED CT has no code for it.
        colour: Recommended display colour, as `rrggbb`.
    """

    name: str
    sides: str = ""
    part_of: str = ""
    aliases: tuple[str, ...] = ()
    snomed: str = ""
    colour: str = ""


@cache
def vocabulary() -> Mapping[str, Structure]:
    """Returns all structures by name."""
    with _TABLE.open(newline="", encoding="utf-8") as file:
        _, *rows = csv.reader(file)
    structures = {}
    for name, sides, whole, aliases, snomed, colour in rows:
        synonyms = tuple(aliases.split("|"))
        structures[name] = Structure(name, sides, whole, synonyms, snomed, colour)
    return structures


@cache
def _canonical_names() -> Mapping[str, str]:
    """Returns the canonical name of each name and alias, with and without a side."""
    canonical: dict[str, str] = {}
    for structure in vocabulary().values():
        names = (structure.name, *filter(None, structure.aliases))
        suffixes = ("", f"_{LEFT}", f"_{RIGHT}") if structure.sides else ("",)
        for suffix in suffixes:
            for name in names:
                canonical[_replace_words(name) + suffix] = structure.name + suffix
    return canonical


def normalise_name(name: str) -> str:
    """Returns the canonical spelling of a structure's name: lower case, side last.

    Examples:
        >>> normalise_name("Left kidney")
        'kidney_left'
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = re.findall(r"[^\W_]+", spaced.lower())
    words = [SIDES.get(word, word) for word in words]
    sides = [word for word in words if word in (LEFT, RIGHT)]
    others = [word for word in words if word not in (LEFT, RIGHT)]
    return "_".join(others + sides)


def lookup(name: str) -> str | None:
    """Returns the canonical name of a structure, or None if the vocabulary lacks it.

    A first letter is a side if the rest is the name of a pair (`lkidney`).

    Examples:
        >>> lookup("Postcava"), lookup("lkidney"), lookup("something")
        ('inferior_vena_cava', 'kidney_left', None)
    """
    plain = _replace_words(name)
    if plain in _canonical_names():
        return _canonical_names()[plain]
    side = SIDES.get(plain[:1])
    return _canonical_names().get(f"{plain[1:]}_{side}") if side else None


def resolve_name(name: str) -> str:
    """Returns the canonical name, or the canonical spelling of a name outside the vocabulary."""
    return lookup(name) or _replace_words(name)


def split_pair(structure: str) -> tuple[str, str] | None:
    """Returns the left and the right structure of a pair, or None if it is not a pair.

    Examples:
        >>> split_pair("kidney")
        ('kidney_left', 'kidney_right')
    """
    row = vocabulary().get(structure)
    if row is None or not row.sides:
        return None
    return f"{structure}_{LEFT}", f"{structure}_{RIGHT}"


def ancestors(structure: str) -> tuple[str, ...]:
    """Returns the structures that contain a structure, the nearest first.

    Examples:
        >>> ancestors("lung_upper_lobe_left")
        ('lung_left', 'lung')
    """
    row = vocabulary().get(structure)
    if row is not None:
        return (row.part_of, *ancestors(row.part_of)) if row.part_of else ()
    pair, _, side = structure.rpartition("_")
    if side not in (LEFT, RIGHT) or not split_pair(pair):
        return ()
    # A part on the left belongs to the left one of a pair: a left femoral head to the left femur.
    same_side = [f"{whole}_{side}" for whole in ancestors(pair) if split_pair(whole)]
    return (*same_side, pair, *ancestors(pair))


def resolve_names(
    names: Iterable[str], meanings: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Returns the canonical name of each name of a dataset; unknown names keep their words.

    Args:
        names: Structure names of the dataset.
        meanings: Ambiguous name -> its meaning (`cancer` -> `lung_tumor`).
    """
    meanings = meanings or {}
    resolved = {}
    for name in names:
        meaning = meanings.get(name, name)
        resolved[name] = lookup(meaning) or normalise_name(name)
    return resolved


def show_resolved(resolved: Mapping[str, str]) -> dict[str, str]:
    """Returns names for display, with the canonical name if it differs.

    Examples:
        >>> show_resolved({"lkidney": "kidney_left", "liver": "liver"})
        {'lkidney': 'lkidney -> kidney_left', 'liver': 'liver'}
    """
    return {
        name: name if canonical == name else f"{name} -> {canonical}"
        for name, canonical in resolved.items()
    }


def match_classes(
    structures: Sequence[str],
    classes: Sequence[str],
    mapping: Mapping[str, str] | None = None,
    meanings: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Matches the structures of a dataset with the classes of a model.

    Args:
        structures: Structure names of the dataset.
        classes: Class names of the model.
        mapping: Structure -> class, taking precedence over the names; an empty class means none.
        meanings: Ambiguous structure name -> its meaning.

    Returns:
        Structure -> class, without structures that the model lacks.

    Raises:
        FseftError: The mapping names an unknown structure or class.

    Examples:
        >>> match_classes(["Left kidney", "bone"], ["kidney_left", "liver"])
        {'Left kidney': 'kidney_left'}
    """
    mapping, meanings = mapping or {}, meanings or {}
    for structure, class_name in mapping.items():
        _check_known("structure", structure, structures)
        if class_name:
            _check_known("class of the model", class_name, classes)
    by_canonical = {
        resolve_name(name): name
        for name in classes
        if not GENERIC_NAME.fullmatch(normalise_name(name))
    }
    matches = {}
    for structure in structures:
        canonical = resolve_name(meanings.get(structure, structure))
        class_name = mapping.get(structure, by_canonical.get(canonical, ""))
        if class_name:
            matches[structure] = class_name
    return matches


def _check_known(kind: str, name: str, names: Sequence[str]) -> None:
    """Refuses a name in a mapping that is not among the names of this kind."""
    if name not in names:
        hint = did_you_mean(name, list(names))
        raise FseftError(f"unknown {kind} {name!r} in the mapping", hint=hint)


def has_sides(structures: Sequence[str]) -> bool:
    """Returns whether a name contains left or right, so that mirrored images need other labels.

    Examples:
        >>> has_sides(["liver", "kidney_left"]), has_sides(["liver"]), has_sides(["lhand", "rhand"])
        (True, False, True)
    """
    names = set()
    for structure in structures:
        names |= {normalise_name(structure), resolve_name(structure)}
    words = {word for name in names for word in name.split("_")}
    if words & {LEFT, RIGHT}:
        return True
    remainders = {letter: {n[1:] for n in names if n.startswith(letter)} for letter in "lr"}
    return bool(remainders["l"] & remainders["r"])


def _replace_words(name: str) -> str:
    """Returns the canonical spelling with British and other variants of words replaced."""
    words = normalise_name(name).split("_")
    return "_".join(WORDS.get(word, word) for word in words)
