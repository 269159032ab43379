"""Volumes that several datasets hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fseft.schemas import Fingerprint


def find_duplicates(
    fingerprints: Sequence[Fingerprint], warn: Callable[[str], None]
) -> dict[str, set[str]]:
    """Dataset -> its labelled cases whose voxels were met before, in whatever file.

    Args:
        fingerprints: Of the datasets; the first that holds a volume keeps it.
        warn: Told which volumes are there again, and which datasets have none of their own.
    """
    again: dict[str, set[str]] = {one.dataset: set() for one in fingerprints}
    met: dict[str, tuple[str, str]] = {}
    for one in fingerprints:
        labelled = [case for case in one.cases if case.labelled]
        for case in labelled:
            name, dataset = met.setdefault(case.voxels, (case.name, one.dataset))
            if (name, dataset) != (case.name, one.dataset):
                again[one.dataset].add(case.name)
                same = (
                    f"case {case.name} of {one.dataset} is the same volume as {name} of {dataset}"
                )
                warn(f"{same}: counted once, with the labels of {dataset}")
        if labelled and len(again[one.dataset]) == len(labelled):
            warn(
                f"{one.dataset}: left out, it has no volume of its own; for its labels to count, name it first"
            )
    return again
