"""What datasets that are learned together call their structures: one name for each, and no part beside its whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fseft.anatomy.vocabulary import (
    AMBIGUOUS_NAMES,
    GENERIC_NAME,
    ancestors,
    normalise_name,
    resolve_name,
    split_pair,
)
from fseft.errors import FseftError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_NAMED = 3  # structures that an error names


@dataclass(frozen=True)
class HarmonisedLabels:
    """One dataset's own names, and what is learned of them.

    Attributes:
        structures: Own name -> structure, of all that stay as they are drawn.
        pairs: Own name -> the left and the right structure that its voxels are divided into.
        unrequested: Sides of pairs that are not to be learned: background, as all that nobody asked for.
    """

    structures: Mapping[str, str]
    pairs: Mapping[str, tuple[str, str]]
    unrequested: frozenset[str] = frozenset()


def harmonise_labels(
    datasets: Mapping[str, Mapping[str, str]], wanted: Sequence[str] = ()
) -> dict[str, HarmonisedLabels]:
    """Decide what the structures of several datasets are called, and which pairs are divided.

    A pair that one dataset draws as a whole (`kidney`) is divided into left and right where another dataset, or the
    user, names a side of it. Else it stays whole: nothing would be gained by guessing sides that nobody drew.

    Args:
        datasets: Dataset -> its own names -> what they mean, of `resolve`.
        wanted: Structures to learn, by any of their names; a pair stands for both sides. By default all.

    Raises:
        FseftError: A dataset has two names for one structure or none that is wanted, a structure is wanted that no
            dataset has, one has a structure whole and it or another has it in parts, or two have a name that does
            not say of what.
    """
    for dataset, names in datasets.items():
        _refuse_twice(dataset, names)
    sides = {meant for names in datasets.values() for meant in names.values()} | {
        resolve_name(name) for name in wanted
    }
    agreed = {dataset: _divided(names, sides) for dataset, names in datasets.items()}
    if wanted:
        agreed = _chosen(agreed, wanted)
    _refuse_vague(agreed)
    _refuse_parts(agreed)
    return agreed


def _divided(names: Mapping[str, str], sides: set[str]) -> HarmonisedLabels:
    pairs = {
        name: pair
        for name, meant in names.items()
        if (pair := split_pair(meant)) is not None
        and sides & set(pair)
        and not set(pair) & set(names.values())
    }
    return HarmonisedLabels(
        {name: meant for name, meant in names.items() if name not in pairs}, pairs
    )


def _chosen(
    agreed: Mapping[str, HarmonisedLabels], wanted: Sequence[str]
) -> dict[str, HarmonisedLabels]:
    """What is wanted of each dataset; a divided pair is kept where one of its sides is."""
    had = {meant for one in agreed.values() for meant in _all(one)}
    asked: set[str] = set()
    for name in wanted:
        meant = {resolve_name(name), normalise_name(name)}
        found = (meant | {half for one in meant for half in split_pair(one) or ()}) & had
        if not found:
            hint = did_you_mean(normalise_name(name), sorted(had))
            raise FseftError(f"--labels {name}: no dataset has this structure", hint=hint)
        asked |= found
    kept = {
        dataset: HarmonisedLabels(
            {name: meant for name, meant in one.structures.items() if meant in asked},
            {name: pair for name, pair in one.pairs.items() if asked & set(pair)},
            frozenset(
                half
                for pair in one.pairs.values()
                for half in pair
                if asked & set(pair) and half not in asked
            ),
        )
        for dataset, one in agreed.items()
    }
    for dataset, one in kept.items():
        if not _all(one):
            cause = f"annotates none of {', '.join(wanted)}"
            raise FseftError(
                cause, file=dataset, hint="Leave the dataset out, or ask for more --labels."
            )
    return kept


def _refuse_twice(dataset: str, names: Mapping[str, str]) -> None:
    first: dict[str, str] = {}
    for name, meant in names.items():
        if first.setdefault(meant, name) != name:
            hint = "Rename one in dataset.json, or give both one value in the label files."
            raise FseftError(
                f"names {meant} twice: {first[meant]!r} and {name!r}", file=dataset, hint=hint
            )


def _refuse_vague(agreed: Mapping[str, HarmonisedLabels]) -> None:
    """Two datasets may well mean different things by `tumour`."""
    users: dict[str, str] = {}
    for dataset, one in agreed.items():
        for name, meant in one.structures.items():
            vague = resolve_name(meant)
            if vague not in AMBIGUOUS_NAMES and not GENERIC_NAME.fullmatch(vague):
                continue
            name_it = (
                f"liver_{vague}"
                if vague in AMBIGUOUS_NAMES
                else '"labels": {"background": 0, "liver": 1}'
            )
            if vague in users:
                raise FseftError(
                    f"{users[vague]} and {dataset} both name a structure {name!r}, which does not say what it is",
                    hint=f"Give it a name in each dataset.json, for example {name_it}.",
                )
            users[vague] = dataset


def _refuse_parts(agreed: Mapping[str, HarmonisedLabels]) -> None:
    """The structures of a model must not overlap."""
    having = {meant: dataset for dataset, one in agreed.items() for meant in _all(one)}
    for whole in having:
        parts = sorted(part for part in having if whole in ancestors(part))
        if parts:
            named = ", ".join(parts[:_NAMED]) + (", ..." if len(parts) > _NAMED else "")
            raise FseftError(
                f"{having[whole]} has {whole} whole, {having[parts[0]]} in parts ({named})",
                hint="Name the structures to learn with --labels, the whole or its parts.",
            )


def _all(one: HarmonisedLabels) -> tuple[str, ...]:
    halves_of = (
        half for pair in one.pairs.values() for half in pair if half not in one.unrequested
    )
    return (*one.structures.values(), *halves_of)
