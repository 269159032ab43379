"""Names of structures: one spelling, and which names mean the same. Imports no torch."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fseft.errors import FseftError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SIDES = {"l": "left", "lt": "left", "r": "right", "rt": "right"}

WORDS = {"tumour": "tumor", "pancreatic": "pancreas", "oesophagus": "esophagus", "vertebra": "vertebrae"}
"""Words that are replaced wherever they stand."""

ALIASES = {
    "adrenal": "adrenal_gland",
    "suprarenal_gland": "adrenal_gland",
    "celiac_truck": "celiac_trunk",
    "celiac_artery": "celiac_trunk",
    "clavicle": "clavicula",
    "eso": "esophagus",
    "gall": "gallbladder",
    "gall_bladder": "gallbladder",
    "gb": "gallbladder",
    "hepatic_tumor": "liver_tumor",
    "hv": "hepatic_vessel",
    "hvt": "hepatic_vessel_tumor",
    "iliac_vein": "iliac_vena",
    "ivc": "inferior_vena_cava",
    "colon_cancer_primaries": "colon_tumor",
    "postcava": "inferior_vena_cava",
    "portal_and_splenic_vein": "portal_vein_and_splenic_vein",
    "portal_and_splenic_veins": "portal_vein_and_splenic_vein",
    "prost_ut": "prostate_uterus",
    "prostate_or_uterus": "prostate_uterus",
    "psv": "portal_vein_and_splenic_vein",
    "small_intestine": "small_bowel",
    "thyroid": "thyroid_gland",
    "urinary_bladder": "bladder",
    "vena_cava_inferior": "inferior_vena_cava",
}
"""Other names of public label sets, without the side, and the one that stands for them here."""


def canonical(name: str) -> str:
    """One spelling for a structure's name: words in lower case, side last (`Left kidney` -> `kidney_left`)."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = [SIDES.get(word, word) for word in re.findall(r"[^\W_]+", spaced.lower())]
    sides = [word for word in words if word in ("left", "right")]
    return "_".join([word for word in words if word not in sides] + sides)


def meaning(name: str) -> str:
    """The canonical name, or what it is another name of (`Postcava` -> `inferior_vena_cava`)."""
    plain = canonical(name)
    base, _, side = plain.rpartition("_") if plain.endswith(("_left", "_right")) else (plain, "", "")
    base = "_".join(WORDS.get(word, word) for word in base.split("_"))
    return "_".join(filter(None, (ALIASES.get(base, base), side)))


def match_classes(
    structures: Sequence[str], classes: Sequence[str], given: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Structure -> the model's class that means the same, where there is one.

    Args:
        structures: Of the dataset.
        classes: Of the model.
        given: Structure -> class as the user says, which goes before what the names say; an empty class means none.

    Raises:
        FseftError: What was given names no structure or no class.
    """
    given = given or {}
    for name, wanted in given.items():
        for kind, value, known in (("structure", name, structures), ("class of the model", wanted, classes)):
            if value and value not in known:
                raise FseftError(
                    f"--map {name}={wanted}: there is no {kind} {value!r}", hint=did_you_mean(value, list(known))
                )
    meant = {meaning(name): name for name in classes}
    found = {
        name: given[name] if name in given else next((meant[m] for m in _meanings(name) if m in meant), "")
        for name in structures
    }
    return {name: wanted for name, wanted in found.items() if wanted}


def has_sides(structures: Sequence[str]) -> bool:
    """Whether a name says left or right, so that a mirrored image would be wrongly labelled."""
    names = {canonical(name) for name in structures}
    said = any({"left", "right"} & set(name.split("_")) for name in names)
    return said or any(f"l{name[1:]}" in names and f"r{name[1:]}" in names for name in names)


def _meanings(name: str) -> tuple[str, ...]:
    """What a name means, and what it means where its first letter is a side (`lkidney`)."""
    plain = canonical(name)
    return (meaning(name), meaning(f"{plain[1:]}_{SIDES[plain[0]]}")) if plain[:1] in SIDES else (meaning(name),)
