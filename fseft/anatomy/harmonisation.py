"""Harmonises the label names of several datasets: one name per structure, and no overlaps."""

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

_MAX_NAMES = 3  # structures in an error


@dataclass(frozen=True)
class HarmonisedLabels:
    """Names of one dataset, and the structures to learn from them.

    Attributes:
        structures: Name in the dataset -> structure.
        pairs: Name in the dataset -> left and right structure, into which its voxels are split.
        unrequested: Sides of pairs that are background because only the other side is to be
            learned.
    """

    structures: Mapping[str, str]
    pairs: Mapping[str, tuple[str, str]]
    unrequested: frozenset[str] = frozenset()

    def names(self) -> tuple[str, ...]:
        """Returns all structures to learn from the dataset."""
        sides = [side for pair in self.pairs.values() for side in pair]
        requested = [side for side in sides if side not in self.unrequested]
        return (*self.structures.values(), *requested)


def harmonise_labels(
    datasets: Mapping[str, Mapping[str, str]], requested: Sequence[str] = ()
) -> dict[str, HarmonisedLabels]:
    """Chooses the name of each structure, and the pairs to split into left and right.

    A pair with one label in a dataset (`kidney`) is split if another dataset, or the user, names
    one of its sides. Otherwise it stays a pair, as splitting it would add guesses but no
    information.

    Args:
        datasets: Dataset -> its names -> their canonical names, see `resolve_names`.
        requested: Structures to learn, by any of their names; a pair stands for both sides. By
            default all.

    Returns:
        Dataset -> its labels.

    Raises:
        FseftError: A dataset has two names for one structure or no requested structure, no dataset
            has a requested structure, a structure and a part of it both occur, or two datasets
            share an ambiguous name.

    Examples:
        >>> labels = harmonise_labels({"a": {"kidney": "kidney"}, "b": {"lkidney": "kidney_left"}})
        >>> labels["a"].pairs
        {'kidney': ('kidney_left', 'kidney_right')}
    """
    occurring = {resolve_name(name) for name in requested}
    for dataset, names in datasets.items():
        _refuse_synonyms(dataset, names)
        occurring |= set(names.values())
    labels = {dataset: _split_pairs(names, occurring) for dataset, names in datasets.items()}
    if requested:
        labels = _restrict(labels, requested)
    _refuse_ambiguous_names(labels)
    _refuse_overlaps(labels)
    return labels


def _split_pairs(names: Mapping[str, str], occurring: set[str]) -> HarmonisedLabels:
    """Splits the pairs of a dataset of which any dataset, but not this one, has a side."""
    structures, pairs = {}, {}
    for name, canonical in names.items():
        sides = split_pair(canonical)
        if sides and occurring & set(sides) and not set(sides) & set(names.values()):
            pairs[name] = sides
        else:
            structures[name] = canonical
    return HarmonisedLabels(structures, pairs)


def _restrict(
    datasets: Mapping[str, HarmonisedLabels], requested: Sequence[str]
) -> dict[str, HarmonisedLabels]:
    """Restricts datasets to requested structures; a split pair stays if one side is requested."""
    available = {name for labels in datasets.values() for name in labels.names()}
    selected: set[str] = set()
    for name in requested:
        selected |= _matching(name, available)
    restricted = {}
    for dataset, labels in datasets.items():
        kept = _restrict_one(labels, selected)
        if not kept.names():
            cause = f"annotates none of {', '.join(requested)}"
            hint = "Exclude the dataset, or request more labels."
            raise FseftError(cause, file=dataset, hint=hint)
        restricted[dataset] = kept
    return restricted


def _matching(name: str, available: set[str]) -> set[str]:
    """Returns the available structures that a requested name denotes."""
    candidates = {resolve_name(name), normalise_name(name)}
    sides = {side for candidate in candidates for side in split_pair(candidate) or ()}
    matching = (candidates | sides) & available
    if not matching:
        hint = did_you_mean(normalise_name(name), sorted(available))
        raise FseftError(f"no dataset has the requested structure {name!r}", hint=hint)
    return matching


def _restrict_one(labels: HarmonisedLabels, selected: set[str]) -> HarmonisedLabels:
    structures = dict(labels.structures)
    for name, structure in labels.structures.items():
        if structure not in selected:
            del structures[name]
    pairs = dict(labels.pairs)
    for name, pair in labels.pairs.items():
        if not selected & set(pair):
            del pairs[name]
    sides = {side for pair in pairs.values() for side in pair}
    return HarmonisedLabels(structures, pairs, frozenset(sides - selected))


def _refuse_synonyms(dataset: str, names: Mapping[str, str]) -> None:
    """Refuses two names of one structure in a dataset."""
    first: dict[str, str] = {}
    for name, canonical in names.items():
        if first.setdefault(canonical, name) != name:
            raise FseftError(
                f"names {canonical} twice: {first[canonical]!r} and {name!r}",
                file=dataset,
                hint="Rename one in dataset.json, or give both one value in the label files.",
            )


def _refuse_ambiguous_names(datasets: Mapping[str, HarmonisedLabels]) -> None:
    """Refuses shared names, such as `tumour`, that may have different meanings in two datasets."""
    first: dict[str, str] = {}
    for dataset, labels in datasets.items():
        for name, structure in labels.structures.items():
            canonical = resolve_name(structure)
            ambiguous = canonical in AMBIGUOUS_NAMES
            if not ambiguous and not GENERIC_NAME.fullmatch(canonical):
                continue
            if canonical in first:
                labels_example = '"labels": {"background": 0, "liver": 1}'
                example = f"liver_{canonical}" if ambiguous else labels_example
                raise FseftError(
                    f"{first[canonical]} and {dataset} share the ambiguous structure name {name!r}",
                    hint=f"Use a specific name in each dataset.json, for example {example}.",
                )
            first[canonical] = dataset


def _refuse_overlaps(datasets: Mapping[str, HarmonisedLabels]) -> None:
    """Refuses a structure together with its parts, as the classes of a model must not overlap."""
    dataset_of = {name: dataset for dataset, labels in datasets.items() for name in labels.names()}
    for whole in dataset_of:
        parts = sorted(part for part in dataset_of if whole in ancestors(part))
        if parts:
            more = ", ..." if len(parts) > _MAX_NAMES else ""
            listed = ", ".join(parts[:_MAX_NAMES]) + more
            other = dataset_of[parts[0]]
            raise FseftError(
                f"{dataset_of[whole]} has {whole}, and {other} parts of it ({listed})",
                hint="Request either the whole or its parts as the labels to learn.",
            )
