"""Names of structures: one spelling, and which names mean the same. Imports no torch.

The vocabulary itself is `structures.csv`: a structure's name, its sides, what it is part of, and its other names.
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
SIDES = {"l": LEFT, "lt": LEFT, "r": RIGHT, "rt": RIGHT}

WORDS = {
    "cancer": "tumor",
    "tumour": "tumor",
    "tumours": "tumor",
    "tumors": "tumor",
    "pancreatic": "pancreas",
    "oesophagus": "esophagus",
    "vertebra": "vertebrae",
}
"""Words that are replaced wherever they stand."""

GENERIC_NAME = re.compile(
    r"(class|label|structure|segment|region|roi)?_?\d+|foreground|organ|structure|roi|object"
)
"""Names that do not say what a structure is: of values without a name, or of whatever was drawn."""
AMBIGUOUS_NAMES = frozenset(
    {"cyst", "lesion", "lesions", "mass", "metastasis", "nodule", "tumor", "vein", "vessel"}
)
"""Names that do not say of what."""

_TABLE = Path(__file__).with_name("structures.csv")


@dataclass(frozen=True)
class Structure:
    """A row of the vocabulary.

    Attributes:
        name: Canonical, without a side where there are two.
        sides: `both`: a left and a right one, normally both there; `either`: each may be missing; empty: one only.
        part_of: The canonical name of the whole, which may have a side; the halves of a pair are parts of the pair.
        aliases: Other names, in canonical spelling, without a side where there are two.
    """

    name: str
    sides: str = ""
    part_of: str = ""
    aliases: tuple[str, ...] = ()


@cache
def vocabulary() -> Mapping[str, Structure]:
    """Every structure by its name."""
    with _TABLE.open(newline="", encoding="utf-8") as file:
        _, *rows = csv.reader(file)
    return {
        name: Structure(name, sides, whole, tuple(aliases.split("|")))
        for name, sides, whole, aliases in rows
    }


@cache
def _known() -> Mapping[str, str]:
    """Each name and alias, with side and without, and what it means."""
    found: dict[str, str] = {}
    for row in vocabulary().values():
        for side in ("", *((f"_{LEFT}", f"_{RIGHT}") if row.sides else ())):
            names = (row.name, *filter(None, row.aliases))
            found |= {f"{_worded(name)}{side}": f"{row.name}{side}" for name in names}
    return found


def normalise_name(name: str) -> str:
    """One spelling for a structure's name: words in lower case, side last (`Left kidney` -> `kidney_left`)."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = [SIDES.get(word, word) for word in re.findall(r"[^\W_]+", spaced.lower())]
    sides = [word for word in words if word in (LEFT, RIGHT)]
    return "_".join([word for word in words if word not in sides] + sides)


def lookup(name: str) -> str | None:
    """The name of a structure in the vocabulary (`Postcava` -> `inferior_vena_cava`), or None where it has none.

    A first letter is a side where the rest is the name of a pair (`lkidney`).
    """
    plain = _worded(name)
    if plain in _known():
        return _known()[plain]
    rest = f"{plain[1:]}_{SIDES[plain[0]]}" if plain[:1] in SIDES else ""
    return _known().get(rest)


def resolve_name(name: str) -> str:
    """The name in the vocabulary, or the canonical spelling of one that it does not have."""
    return lookup(name) or _worded(name)


def split_pair(structure: str) -> tuple[str, str] | None:
    """The left and the right one of a pair that is named as a whole (`kidney`), else None."""
    row = vocabulary().get(structure)
    return (
        (f"{structure}_{LEFT}", f"{structure}_{RIGHT}") if row is not None and row.sides else None
    )


def ancestors(structure: str) -> tuple[str, ...]:
    """What a structure is part of, the nearest first (`lung_upper_lobe_left` -> `lung_left`, `lung`)."""
    if (row := vocabulary().get(structure)) is not None:
        return (row.part_of, *ancestors(row.part_of)) if row.part_of else ()
    pair, _, side = structure.rpartition("_")
    if side not in (LEFT, RIGHT) or not split_pair(pair):
        return ()
    same_side = (
        f"{whole}_{side}" for whole in ancestors(pair) if split_pair(whole)
    )  # a left head is of the left femur
    return (*same_side, pair, *ancestors(pair))


def resolve_names(
    names: Iterable[str], meanings: Mapping[str, str] | None = None
) -> dict[str, str]:
    """A dataset's own names -> what they mean; a name that the vocabulary does not have keeps its words.

    Args:
        names: Of the dataset.
        meanings: What some of them mean where they do not say so themselves (`cancer` -> `lung_tumor`).
    """
    given = meanings or {}
    return {name: lookup(given.get(name, name)) or normalise_name(name) for name in names}


def show_resolved(resolved: Mapping[str, str]) -> dict[str, str]:
    """A dataset's own names -> how they are shown: `lkidney -> kidney_left` where that is another word."""
    return {
        name: name if meant == name else f"{name} -> {meant}" for name, meant in resolved.items()
    }


def match_classes(
    structures: Sequence[str],
    classes: Sequence[str],
    given: Mapping[str, str] | None = None,
    meanings: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Structure -> the model's class that means the same, where there is one.

    Args:
        structures: Of the dataset.
        classes: Of the model.
        given: Structure -> class as the user says, which goes before what the names say; an empty class means none.
        meanings: What some structures mean where their names do not say so.

    Raises:
        FseftError: What was given names no structure or no class.
    """
    given, meanings = given or {}, meanings or {}
    for name, wanted in given.items():
        for kind, value, there in (
            ("structure", name, structures),
            ("class of the model", wanted, classes),
        ):
            if value and value not in there:
                raise FseftError(
                    f"--map {name}={wanted}: there is no {kind} {value!r}",
                    hint=did_you_mean(value, list(there)),
                )
    meant = {
        resolve_name(name): name
        for name in classes
        if not GENERIC_NAME.fullmatch(normalise_name(name))
    }
    found = {
        name: given[name]
        if name in given
        else meant.get(resolve_name(meanings.get(name, name)), "")
        for name in structures
    }
    return {name: wanted for name, wanted in found.items() if wanted}


def has_sides(structures: Sequence[str]) -> bool:
    """Whether a name says left or right, so that a mirrored image would be wrongly labelled."""
    names = {normalise_name(name) for name in structures} | {
        resolve_name(name) for name in structures
    }
    said = any({LEFT, RIGHT} & set(name.split("_")) for name in names)
    return said or any(f"l{name[1:]}" in names and f"r{name[1:]}" in names for name in names)


def _worded(name: str) -> str:
    return "_".join(WORDS.get(word, word) for word in normalise_name(name).split("_"))
