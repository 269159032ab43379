"""The cases that a benchmark scores: nothing learns from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fseft.errors import FseftError, did_you_mean, pluralise
from fseft.evaluation.matching import ReferenceLabels, read_references
from fseft.inference.scan_files import gather_scans
from fseft.volume.fingerprint import read_case, read_case_labels
from fseft.volume.geometry import geometry_mismatch, reorient
from fseft.volume.image import (
    Volume,
    content_digest,
    read_labels,
    read_volume,
    voxels_digest,
    write_labels,
)
from fseft.workspace import digest

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from fseft.schemas import Case, Dataset, Fingerprint

USUAL = 20
"""Cases that are held out where there are twice as many."""


@dataclass(frozen=True)
class TestSplit:
    """What is scored.

    Attributes:
        scans: Case -> its files, one per channel or one for all.
        references: Their labels.
        pool: The cases that may be learned from.
        key: Of the scans, the labels and what they mean.
        alone: Scans that have no label, or labels that have no scan: they are not scored.
    """

    scans: Mapping[str, tuple[Path, ...]]
    references: ReferenceLabels
    pool: tuple[str, ...]
    key: str
    alone: tuple[str, ...] = ()


def hold_out(
    dataset: Dataset,
    fingerprint: Fingerprint,
    *,
    cases: Sequence[str],
    test: Sequence[str],
    k: int,
    folder: Path,
) -> TestSplit:
    """Keep some of a dataset's labelled cases from learning; which ones depends on their names alone, not on k.

    Args:
        dataset: As read.
        fingerprint: Of the dataset.
        cases: Only these are used, but for others that `test` names; empty: all that are labelled.
        test: Names of the cases to score, or how many are drawn; empty: 20, or half where there are fewer than 40.
        k: So many must be left to learn from.
        folder: Where a label map is written for cases that have masks or slices instead.

    Raises:
        FseftError: There is no such case, or there are too few.
    """
    labelled = sorted(case.name for case in fingerprint.cases if case.volumes_mm3)
    number = (
        int(test[0]) if len(test) == 1 and test[0] not in labelled and test[0].isdecimal() else 0
    )
    for name in (*cases, *(test if not number else ())):
        if name not in labelled:
            raise FseftError(
                "is no labelled case of the dataset", case=name, hint=did_you_mean(name, labelled)
            )
    pool = sorted(set(cases) or set(labelled))
    by_chance = sorted(pool, key=lambda name: digest("test", name))
    chosen = sorted(
        by_chance[: number or min(USUAL, len(pool) // 2)] if number or not test else set(test)
    )
    if not chosen:
        raise FseftError(
            "1 labelled case is too few", hint="Add cases, or give --test-images and --test-labels."
        )
    same = {case.voxels for case in fingerprint.cases if case.name in chosen} - {""}
    seen = {case.name for case in fingerprint.cases if case.voxels in same}
    known = {case.name: case for case in dataset.cases}
    folder = folder.absolute()
    labels = {
        name: _label_map(known[name], dataset.channels, folder / f"{name}.nii.gz")
        for name in chosen
    }
    contents = {case.name: case.content for case in fingerprint.cases}
    return TestSplit(
        {name: known[name].images for name in chosen},
        ReferenceLabels(labels, dict(dataset.labels)),
        _pool(pool, {*chosen, *seen}, k, len(chosen)),
        digest([(name, contents[name]) for name in chosen], dataset.labels),
    )


def external(
    images: Path,
    labels: Path,
    *,
    dataset: Dataset,
    fingerprint: Fingerprint,
    structures: Collection[str],
    cases: Sequence[str],
    k: int,
) -> TestSplit:
    """Scans that lie apart from the dataset, and their labels; all are read once, so that none fails after a training.

    Args:
        images: Folder of scans.
        labels: Folder of their labels; names come from `dataset.json` in or above it, or are the dataset's.
        dataset: Of the cases to learn from.
        fingerprint: Of the dataset.
        structures: What will be scored.
        cases: Only these may be learned from; empty: all that are labelled. Those that are scored too are left out.
        k: So many must be left to learn from.

    Raises:
        FseftError: There are none, none with a label, one is broken or has another grid than its label, or the labels
            do not have all structures.
    """
    references = read_references(labels.absolute())
    values = dict(dataset.labels) if references.values is None else references.values
    if missing := [name for name in structures if name not in values]:
        raise FseftError(
            f"the labels know no {missing[0]!r}",
            file=labels,
            hint=did_you_mean(missing[0], list(values)),
        )
    found = gather_scans([images], len(dataset.channels))
    scans = {name: files for name, files in found.items() if name in references.files}
    if not scans:
        raise FseftError(
            "no scan has a label of its name", file=images, hint="Give the folder of their labels."
        )
    files = {name: references.files[name] for name in scans}
    voxels = {_checked(name, scans[name], files[name], len(dataset.channels)) for name in scans}
    labelled = sorted(case.name for case in fingerprint.cases if case.volumes_mm3)
    seen = {case.name for case in fingerprint.cases if case.voxels in voxels}
    contents = [(name, content_digest(scans[name]), content_digest(files[name])) for name in scans]
    return TestSplit(
        scans,
        ReferenceLabels(files, values, references.ignore_value),
        _pool(sorted(set(cases) or set(labelled)), seen, k, len(scans)),
        digest(contents, values, references.ignore_value),
        tuple(sorted(found.keys() ^ references.files.keys())),
    )


def _checked(name: str, scan: tuple[Path, ...], label: Path, channels: int) -> str:
    """A key of a scan's voxels, if its label lies on its grid."""
    volume = read_volume(scan[0] if len(scan) == 1 else scan, channels=channels, case=name)
    stored = read_labels(label, case=name)
    turned = Volume(*reorient(stored.array, stored.geometry, volume.geometry.orientation))
    if difference := geometry_mismatch(volume.geometry, turned.geometry):
        cause = f"is not on the grid of its scan {scan[0].name}: {difference}"
        raise FseftError(
            cause, case=name, file=label, hint="Draw or resample the label on the scan's grid."
        )
    return voxels_digest(volume)


def _pool(cases: Sequence[str], scored: Collection[str], k: int, count: int) -> tuple[str, ...]:
    """The cases that are not scored."""
    left = tuple(name for name in cases if name not in scored)
    if len(left) < k:
        raise FseftError(
            f"k is {k}, but of {pluralise(len(cases), 'labelled case')} {len(left)} are left to learn from, as {count} "
            "are scored",
            hint="Use a smaller --k or --test, or give --test-images and --test-labels.",
        )
    return left


def _label_map(case: Case, channels: Sequence[str], written: Path) -> Path:
    """The file with a case's labels; made of its masks or slices where there is none."""
    if isinstance(case.label, dict) or case.label is None or case.label.is_dir():
        labels = read_case_labels(case, read_case(case, channels))
        write_labels(written, labels.array[0], labels.geometry)
        return written
    return case.label.absolute()
