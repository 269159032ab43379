"""Volumes that occur in several datasets."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fseft.schemas import CaseFingerprint, Fingerprint

logger = logging.getLogger(__name__)


def find_duplicates(fingerprints: Sequence[Fingerprint]) -> dict[str, set[str]]:
    """Finds labelled cases with the same voxels, in any file format; logs each as a warning.

    Args:
        fingerprints: Fingerprints of the datasets; a volume counts for the first that contains it.

    Returns:
        Dataset -> cases that repeat a volume.
    """
    duplicates: dict[str, set[str]] = {}
    first_cases: dict[str, tuple[str, str]] = {}
    for fingerprint in fingerprints:
        dataset = fingerprint.dataset
        labelled = [case for case in fingerprint.cases if case.labelled]
        duplicates[dataset] = _duplicates(labelled, dataset, first_cases)
        if labelled and len(duplicates[dataset]) == len(labelled):
            logger.warning(
                "%s: left out, as all its volumes are in other datasets; name it first to use its "
                "labels instead",
                dataset,
            )
    return duplicates


def _duplicates(
    cases: Sequence[CaseFingerprint], dataset: str, first_cases: dict[str, tuple[str, str]]
) -> set[str]:
    names = set()
    for case in cases:
        name, source = first_cases.setdefault(case.voxels, (case.name, dataset))
        if (name, source) == (case.name, dataset):
            continue
        names.add(case.name)
        logger.warning(
            "case %s of %s is the same volume as %s of %s: used once, with the labels of %s",
            *(case.name, dataset, name, source, source),
        )
    return names
