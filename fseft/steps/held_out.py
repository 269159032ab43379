"""The cases that a benchmark scores: nothing learns from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fseft.errors import FseftError, counted, did_you_mean
from fseft.learn.batches import derived_seed
from fseft.steps.pairing import References, read_references
from fseft.steps.scans import gather_scans
from fseft.store import digest
from fseft.volume.fingerprint import read_case, read_case_labels
from fseft.volume.image import content_digest, write_labels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from fseft.documents import Case, Dataset, Fingerprint

USUAL = 20
"""Cases that are held out where there are so many to spare."""


@dataclass(frozen=True)
class HeldOut:
    """What is scored.

    Attributes:
        scans: Case -> its files, one per channel or one for all.
        references: Their labels.
        pool: The cases that may be learned from.
        key: Of the contents of scans and labels.
    """

    scans: Mapping[str, tuple[Path, ...]]
    references: References
    pool: tuple[str, ...]
    key: str


def hold_out(
    dataset: Dataset,
    fingerprint: Fingerprint,
    *,
    cases: Sequence[str],
    test: Sequence[str],
    largest_k: int,
    folder: Path,
) -> HeldOut:
    """Keep some of a dataset's labelled cases from learning; the same ones whatever k and seed are.

    Args:
        dataset: As read.
        fingerprint: Of the dataset.
        cases: Only these may be learned from, and others scored only if they are named; empty: all that are labelled.
        test: Names of the cases to score, or how many are drawn by chance; empty: 20, or as many as there are beside k.
        largest_k: So many must be left to learn from.
        folder: Where a label map is written for cases that have masks or slices instead.

    Raises:
        FseftError: There is no such case, or there are too few.
    """
    labelled = sorted(case.name for case in fingerprint.cases if case.volumes_mm3)
    pool, count = sorted(set(cases) or set(labelled)), _count(test)
    chosen = _drawn(pool, count, largest_k) if count or not test else sorted(set(test))
    for name in (*pool, *chosen):
        if name not in labelled:
            raise FseftError("is no labelled case of the dataset", case=name, hint=did_you_mean(name, labelled))
    known = {case.name: case for case in dataset.cases}
    scans = {name: known[name].images for name in chosen}
    labels = {name: _label_map(known[name], dataset.channels, folder / f"{name}.nii.gz") for name in chosen}
    contents = {case.name: case.content for case in fingerprint.cases}
    left = tuple(name for name in pool if name not in chosen)
    return HeldOut(scans, References(labels, dict(dataset.labels)), left, digest([contents[name] for name in chosen]))


def external(images: Path, labels: Path, *, channels: int, pool: Sequence[str]) -> HeldOut:
    """Scans that lie apart from the dataset, and their labels.

    Args:
        images: Folder of scans.
        labels: Folder of their labels; names come from `dataset.json` in or above it.
        channels: Of each scan.
        pool: The cases that may be learned from; empty: all.

    Raises:
        FseftError: There are none, or none with a label.
    """
    references = read_references(labels.absolute())
    scans = {name: files for name, files in gather_scans([images], channels).items() if name in references.files}
    if not scans:
        raise FseftError("no scan has a label of its name", file=images, hint="Give the folder of their labels.")
    files = {name: references.files[name] for name in scans}
    key = digest([(content_digest(scans[name]), content_digest(files[name])) for name in scans])
    return HeldOut(scans, References(files, references.values, references.ignore), tuple(pool), key)


def _count(test: Sequence[str]) -> int:
    """The number that stands in place of names; 0 where there is none."""
    return int(test[0]) if len(test) == 1 and test[0].isdigit() else 0


def _drawn(pool: list[str], count: int, largest_k: int) -> list[str]:
    spare = len(pool) - largest_k
    count = count or min(USUAL, spare)
    if count > spare or count < 1:
        raise FseftError(
            f"{counted(len(pool), 'labelled case')} are too few to learn from {largest_k} and score "
            f"{max(count, 1)} others",
            hint="Use a smaller --k or --test, or give --test-images and --test-labels.",
        )
    order = np.random.default_rng(derived_seed(0, "test")).permutation(len(pool))
    return sorted(pool[index] for index in order[:count])


def _label_map(case: Case, channels: Sequence[str], written: Path) -> Path:
    """The file with a case's labels; made of its masks or slices where there is none."""
    if isinstance(case.label, dict) or case.label is None or case.label.is_dir():
        labels = read_case_labels(case, read_case(case, channels))
        write_labels(written, labels.array[0], labels.geometry)
        return written
    return case.label.absolute()
