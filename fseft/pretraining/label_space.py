"""Common label space of several datasets: the structures, and their label value in each dataset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fseft.anatomy.harmonisation import HarmonisedLabels, harmonise_labels
from fseft.anatomy.vocabulary import lookup, resolve_names, vocabulary
from fseft.volume.laterality import LeftRightPair

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from fseft.schemas import Fingerprint

LESIONS = ("cyst", "lesion", "mass", "tumor")


@dataclass(frozen=True)
class LabelMapping:
    """Mapping of a dataset's labels to the common structures.

    Attributes:
        names: The dataset's own name -> the structure, or those sides of a pair that are learned.
        labels: Structure -> label value.
        pairs: Label value in the files -> the new values of its left and right side.
    """

    names: Mapping[str, tuple[str, ...]]
    labels: Mapping[str, int]
    pairs: Mapping[int, LeftRightPair]

    def __str__(self) -> str:
        """Renamed structures (`lkidney -> kidney_left`), and names unknown to the vocabulary."""
        parts = [
            f"{name} -> {' + '.join(structures)}"
            for name, structures in self.names.items()
            if structures != (name,)
        ]
        unknown = [name for name, structures in self.names.items() if lookup(structures[0]) is None]
        if unknown:
            parts.append(f"kept as they are, unknown to the vocabulary: {', '.join(unknown)}")
        return "; ".join(parts) or "all names are those of the vocabulary"


def harmonise_datasets(
    fingerprints: Sequence[Fingerprint],
    requested: Sequence[str] = (),
    annotated: Mapping[str, Collection[str]] | None = None,
) -> list[LabelMapping]:
    """Finds the common structures of several datasets.

    A structure that is declared but drawn in no case counts as not annotated.

    Args:
        fingerprints: Fingerprints of the datasets.
        requested: Structures to learn; empty for all.
        annotated: Dataset -> structures, by its own names, that are annotated even if no case
            contains them.

    Returns:
        One mapping per dataset, in the same order.

    Raises:
        FseftError: The names contradict each other.
    """
    structures = {
        fingerprint.dataset: resolve_names(
            _annotated_names(fingerprint, (annotated or {}).get(fingerprint.dataset, ())),
            fingerprint.meanings,
        )
        for fingerprint in fingerprints
    }
    harmonised = harmonise_labels(structures, requested)
    return [_label_mapping(harmonised[item.dataset], item.labels) for item in fingerprints]


def _annotated_names(fingerprint: Fingerprint, annotated: Collection[str]) -> list[str]:
    classes = fingerprint.classes
    return [name for name in fingerprint.labels if classes[name].cases or name in annotated]


def lesion_warnings(mappings: Mapping[str, LabelMapping]) -> list[str]:
    """Warnings for organs whose lesions are a separate structure in some of the datasets only.

    Args:
        mappings: Dataset -> label mapping.
    """
    organs = {
        dataset: {_without_side(structure) for structure in mapping.labels}
        for dataset, mapping in mappings.items()
    }
    return [
        f"{other} has {organ}, {dataset} also {lesion}: if {other} labels lesions as {organ}, the "
        "two contradict each other; label both by the same rule"
        for dataset, structures in organs.items()
        for organ, lesion in _organs_with_lesion(structures)
        for other in organs
        if organ in organs[other] and lesion not in organs[other]
    ]


def _organs_with_lesion(structures: Collection[str]) -> Iterator[tuple[str, str]]:
    for structure in sorted(structures):
        organ, _, suffix = structure.rpartition("_")
        if suffix in LESIONS and organ in structures:
            yield organ, structure


def _without_side(structure: str) -> str:
    return structure.removesuffix("_left").removesuffix("_right")


def _label_mapping(harmonised: HarmonisedLabels, values: Mapping[str, int]) -> LabelMapping:
    labels = {structure: values[name] for name, structure in harmonised.structures.items()}
    names: dict[str, tuple[str, ...]] = {
        name: (structure,) for name, structure in harmonised.structures.items()
    }
    pairs = {}
    unused_value = max(values.values(), default=0) + 1
    for name, sides in sorted(harmonised.pairs.items()):
        structure = vocabulary()[_without_side(sides[0])]
        pair = LeftRightPair(unused_value, unused_value + 1, expect_both=structure.sides == "both")
        pairs[values[name]] = pair
        labels |= {sides[0]: pair.left, sides[1]: pair.right}
        names[name] = tuple(side for side in sides if side not in harmonised.unrequested)
        unused_value += 2
    return LabelMapping(names, labels, pairs)
