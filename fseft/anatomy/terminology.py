"""Codes and display colours of structures, as DICOM segments and 3D Slicer use them."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fseft.anatomy.vocabulary import LEFT, RIGHT, lookup, normalise_name, vocabulary
from fseft.workspace import digest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fseft.anatomy.vocabulary import Structure

    Colour = tuple[int, int, int]

_PRIVATE = "99FSEFT"
_MAX_CODE, _MAX_MEANING = 16, 64  # characters of DICOM's SH and LO
_GOLDEN = 0.618034  # step of the hue: any number of neighbours differ
_LIGHTER = 0.4  # fraction of white in the colour of the right one of a pair


@dataclass(frozen=True)
class Code:
    """A coded concept.

    Attributes:
        value: The code.
        meaning: Its meaning in English.
        scheme: `SCT` for SNOMED CT, or a private coding scheme.
    """

    value: str
    meaning: str
    scheme: str = "SCT"

    @property
    def is_private(self) -> bool:
        """Whether no other program can look the code up."""
        return self.scheme == _PRIVATE


_ANATOMY = Code("123037004", "Anatomical Structure")
_FINDING = Code("49755003", "Morphologically Altered Structure")
_SIDES = {LEFT: Code("7771000", "Left"), RIGHT: Code("24028007", "Right")}


@dataclass(frozen=True)
class Term:
    """The codes of a structure, as in a segment of DICOM.

    Attributes:
        category: Anatomical structure, or altered structure (a tumour, a cyst).
        kind: What it is.
        side: Laterality of an anatomical structure.
        region: Where a finding is; None for an anatomical structure.
        region_side: Laterality of the region.
    """

    category: Code
    kind: Code
    side: Code | None = None
    region: Code | None = None
    region_side: Code | None = None


def term_of(name: str) -> Term:
    """Returns the codes of a structure; a private code if the vocabulary lacks it.

    Args:
        name: Name of the structure, also a synonym.

    Examples:
        >>> term = term_of("Left kidney")
        >>> term.kind.value, term.kind.meaning, term.side.meaning
        ('64033007', 'Kidney', 'Left')
        >>> term_of("my organ").kind
        Code(value='MY_ORGAN', meaning='my organ', scheme='99FSEFT')
    """
    row, side = _row_and_side(name)
    if row is None or not row.snomed:
        return Term(_ANATOMY, _private_code(name), side)
    kind, _, organ = row.snomed.partition("@")
    if not organ:
        return Term(_ANATOMY, _parsed(kind), side)
    region = _parsed(vocabulary()[organ].snomed)
    category = _ANATOMY if row.name.endswith("vessel") else _FINDING
    return Term(category, _parsed(kind), region=region, region_side=side)


def structure_colours(names: Iterable[str]) -> dict[str, Colour]:
    """Returns a display colour (red, green, blue) for each structure.

    The right one of a pair is lighter than the left one. Names outside the vocabulary get hues that
    differ from each other.
    """
    colours = {}
    for number, name in enumerate(names):
        row, side = _row_and_side(name)
        if row is None or not row.colour:
            rgb = colorsys.hsv_to_rgb(number * _GOLDEN % 1, 0.7, 0.9)
            colours[name] = _colour(255 * value for value in rgb)
            continue
        white = _LIGHTER if side == _SIDES[RIGHT] else 0.0
        colours[name] = _colour(
            value + white * (255 - value) for value in bytes.fromhex(row.colour)
        )
    return colours


def _row_and_side(name: str) -> tuple[Structure | None, Code | None]:
    """Returns the row of a name in the vocabulary, and its side if it is one of a pair."""
    canonical = lookup(name)
    if canonical is None or canonical in vocabulary():
        return vocabulary().get(canonical or ""), None
    pair, _, side = canonical.rpartition("_")
    return vocabulary()[pair], _SIDES[side]


def _parsed(text: str) -> Code:
    value, _, meaning = text.partition(" ")
    return Code(value, meaning)


def _private_code(name: str) -> Code:
    value = normalise_name(name).upper()
    is_valid = value.isascii() and 0 < len(value) <= _MAX_CODE
    if not is_valid:
        value = digest(name, length=_MAX_CODE).upper()
    meaning = " ".join(name.split())[:_MAX_MEANING]
    return Code(value, meaning or value, _PRIVATE)


def _colour(values: Iterable[float]) -> Colour:
    red, green, blue = (round(value) for value in values)
    return red, green, blue
