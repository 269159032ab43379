"""Selects the training cases and the structures of an adaptation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fseft.errors import FseftError, did_you_mean, pluralise
from fseft.learn.training.prefetch import derived_seed

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from fseft.schemas import Fingerprint


def select_support(
    labelled: Sequence[str], k: int, seed: int, pool: Sequence[str] = ()
) -> tuple[str, ...]:
    """Draws k of the labelled cases in a random order, so that a smaller k is part of a larger one.

    Args:
        labelled: Names of all labelled cases.
        k: Number of cases to draw.
        seed: Seed of the order.
        pool: Draw from these cases only; empty for all.

    Returns:
        The names of the cases, in the order in which they were drawn.

    Raises:
        FseftError: k is larger than the number of cases, or the pool names a case that is not
            labelled.

    Examples:
        >>> cases = ["a", "b", "c", "d"]
        >>> select_support(cases, 3, seed=0)[:2] == select_support(cases, 2, seed=0)
        True
    """
    for name in pool:
        if name not in labelled:
            hint = did_you_mean(name, list(labelled))
            raise FseftError("is not a labelled case of the dataset", case=name, hint=hint)
    candidates = sorted(set(pool) or set(labelled))
    count = len(candidates)
    if not 1 <= k <= count:
        verb = "is" if count == 1 else "are"
        raise FseftError(
            f"k is {k}, but there {verb} {pluralise(count, 'labelled case')} to choose from",
            hint=f"Use k between 1 and {count}." if count else "Add labels to the dataset.",
        )
    order = np.random.default_rng(derived_seed(seed, "support")).permutation(count)
    return tuple(candidates[index] for index in order[:k])


def count_cases(
    structures: Iterable[str], cases: Collection[str], fingerprint: Fingerprint
) -> dict[str, int]:
    """Counts the cases in which each structure is labelled.

    Args:
        structures: Names of the structures.
        cases: Names of the cases to consider.
        fingerprint: Of the dataset.

    Returns:
        Structure -> number of cases.
    """
    counts = dict.fromkeys(structures, 0)
    for case in fingerprint.cases:
        if case.name not in cases:
            continue
        for name in case.volumes_mm3:
            if name in counts:
                counts[name] += 1
    return counts


def select_labels(fingerprint: Fingerprint, structures: Sequence[str]) -> dict[str, int]:
    """Selects the structures to segment that at least one case shows.

    Args:
        fingerprint: Of the dataset.
        structures: Names of structures; empty for all.

    Returns:
        Structure -> label value, by value.

    Raises:
        FseftError: A name is unknown, or no case shows the structure.
    """
    for name in structures:
        if name not in fingerprint.labels:
            raise FseftError(
                f"the dataset has no structure {name!r}",
                hint=did_you_mean(name, list(fingerprint.labels)),
            )
    selected = {n: v for n, v in fingerprint.labels.items() if not structures or n in structures}
    present = {name for name in selected if fingerprint.classes[name].cases}
    absent = sorted(selected.keys() - present)
    if structures and absent:
        raise FseftError(
            f"the structure {absent[0]!r} is in no case", hint="Leave it out of the labels."
        )
    if not present:
        raise FseftError(
            "no case has a label with a structure in it", hint="Add labels to the dataset."
        )
    by_value = sorted(selected.items(), key=lambda item: item[1])
    return {name: value for name, value in by_value if name in present}
