"""Which structures several datasets annotate together, and where each is found in its dataset's label maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fseft.anatomy.harmonisation import HarmonisedLabels, harmonise_labels
from fseft.anatomy.vocabulary import lookup, resolve_names, vocabulary
from fseft.volume.laterality import LeftRightPair

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from fseft.schemas import Fingerprint


LESIONS = ("cyst", "lesion", "mass", "tumor")


@dataclass(frozen=True)
class LabelMapping:
    """What a dataset annotates.

    Attributes:
        names: Its own name -> the structure, or those of a pair that are learned.
        labels: Structure -> label value.
        pairs: Label value in the files -> the new values of its left and right.
    """

    names: Mapping[str, tuple[str, ...]]
    labels: Mapping[str, int]
    pairs: Mapping[int, LeftRightPair]

    def __str__(self) -> str:
        """What its names were taken for: `lkidney -> kidney_left`, and which stay as they are."""
        told = [
            f"{name} -> {' + '.join(meant)}"
            for name, meant in self.names.items()
            if meant != (name,)
        ]
        unknown = [name for name, meant in self.names.items() if lookup(meant[0]) is None]
        if unknown:
            told.append(f"kept as they are, unknown to the vocabulary: {', '.join(unknown)}")
        return "; ".join(told) or "all names are those of the vocabulary"


def agree_on_structures(
    fingerprints: Sequence[Fingerprint],
    wanted: Sequence[str] = (),
    looked_for: Mapping[str, Collection[str]] | None = None,
) -> list[LabelMapping]:
    """What is learned of each dataset. What has a label but is drawn in no case is not annotated.

    Args:
        fingerprints: Of the datasets.
        wanted: Structures to learn; by default all.
        looked_for: Dataset -> structures that are annotated even if no case has any, by its own names.

    Raises:
        FseftError: The names contradict each other.
    """
    declared = looked_for or {}
    drawn = {
        one.dataset: resolve_names(
            [
                name
                for name in one.labels
                if one.classes[name].cases or name in declared.get(one.dataset, ())
            ],
            one.meanings,
        )
        for one in fingerprints
    }
    agreed = harmonise_labels(drawn, wanted)
    return [_annotation(agreed[one.dataset], one.labels) for one in fingerprints]


def lesions_apart(annotations: Mapping[str, LabelMapping]) -> list[str]:
    """What is odd where one dataset has an organ and its lesions apart, and another the organ alone.

    Args:
        annotations: By the names of the datasets.
    """
    organs = {
        dataset: {_without_side(name) for name in one.labels}
        for dataset, one in annotations.items()
    }
    apart = {
        (dataset, organ): lesion
        for dataset, names in organs.items()
        for lesion in sorted(names)
        if (organ := lesion.rpartition("_")[0]) in names and lesion.rpartition("_")[2] in LESIONS
    }
    return [
        f"{other} has {organ}, {dataset} also {lesion}: if {other} counts lesions as {organ}, the two contradict each "
        "other; give both one rule"
        for (dataset, organ), lesion in apart.items()
        for other, names in organs.items()
        if organ in names and lesion not in names
    ]


def _without_side(structure: str) -> str:
    return structure.removesuffix("_left").removesuffix("_right")


def _annotation(agreed: HarmonisedLabels, declared: Mapping[str, int]) -> LabelMapping:
    labels = {meant: declared[name] for name, meant in agreed.structures.items()}
    names: dict[str, tuple[str, ...]] = {
        name: (meant,) for name, meant in agreed.structures.items()
    }
    pairs = {}
    free = max(declared.values(), default=0) + 1
    for name, (left, right) in sorted(agreed.pairs.items()):
        pairs[declared[name]] = LeftRightPair(
            free, free + 1, expect_both=vocabulary()[left.removesuffix("_left")].sides == "both"
        )
        labels |= {left: free, right: free + 1}
        names[name] = tuple(half for half in (left, right) if half not in agreed.unrequested)
        free += 2
    return LabelMapping(names, labels, pairs)
