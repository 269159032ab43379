"""Test cases of a benchmark, which no method is trained on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fseft.errors import FseftError, did_you_mean, pluralise
from fseft.evaluation.matching import ReferenceLabels, read_references
from fseft.inference.scan_files import gather_scans
from fseft.planning.label_presence import incomplete_annotations
from fseft.schemas import FULLY_ANNOTATED
from fseft.volume.case_files import read_case, read_case_labels
from fseft.volume.geometry import geometry_mismatch, reorient
from fseft.volume.image import (
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

DEFAULT_TEST_CASES = 20
"""Number of test cases; fewer than twice as many labelled cases are halved."""


@dataclass(frozen=True)
class TestSplit:
    """Test cases, and the cases to draw training cases from.

    Attributes:
        scans: Files of each test case: one per channel, or one for all.
        references: Labels of the test cases.
        pool: Cases to draw training cases from.
        key: Digest of scans, labels and their structures.
        unmatched: Scans without a label and labels without a scan, which are not scored.
    """

    scans: Mapping[str, tuple[Path, ...]]
    references: ReferenceLabels
    pool: tuple[str, ...]
    key: str
    unmatched: tuple[str, ...] = ()


def hold_out(
    dataset: Dataset,
    fingerprint: Fingerprint,
    *,
    cases: Sequence[str],
    test: Sequence[str],
    k: int,
    folder: Path,
) -> TestSplit:
    """Holds out some of a dataset's labelled cases.

    The draw depends on the names of the cases only, so that it is the same for any k.

    Args:
        dataset: The dataset.
        fingerprint: Its fingerprint.
        cases: Use these cases only, and those in `test`; empty for all labelled cases.
        test: Names of the test cases, or their number; empty for 20, or half of fewer than 40.
        k: Number of training cases that must remain.
        folder: Folder for the label maps of test cases whose labels are masks or slices.

    Raises:
        FseftError: A case is unknown, or there are too few cases.
    """
    labelled = _labelled(fingerprint)
    pool = sorted(set(cases) or set(labelled))
    _check_names(cases, labelled)
    chosen = _choose(pool, test, labelled)
    by_name = {case.name: case for case in dataset.cases}
    labels = {}
    for name in chosen:
        converted = folder.absolute() / f"{name}.nii.gz"
        labels[name] = _label_map(by_name[name], dataset.channels, converted)
    excluded = {*chosen, *_duplicates(chosen, fingerprint)}
    contents = {case.name: case.content for case in fingerprint.cases}
    references = _held_out_references(dataset, fingerprint, labels)
    return TestSplit(
        scans={name: by_name[name].images for name in chosen},
        references=references,
        pool=_remaining(pool, excluded, k, len(chosen)),
        key=digest(
            [(name, contents[name]) for name in chosen],
            dataset.labels,
            *([references.regions] if references.regions else []),
            *_lists(references),
        ),
    )


def _held_out_references(
    dataset: Dataset, fingerprint: Fingerprint, files: dict[str, Path]
) -> ReferenceLabels:
    """Returns the labels of cases of a dataset, with what they annotate."""
    drawn = [name for name, structure in fingerprint.classes.items() if structure.cases]
    annotated = incomplete_annotations(dataset, fingerprint, files, drawn)
    regions = dict(dataset.regions)
    return ReferenceLabels(files, dict(dataset.labels), dataset.annotation, regions, annotated)


def _lists(references: ReferenceLabels) -> list[dict[str, list[str]]]:
    """Returns the annotated structures of each case; nothing if all annotate all."""
    lists = {}
    for case, names in references.annotated.items():
        lists[case] = sorted(names)
    return [lists] if lists else []


def _labelled(fingerprint: Fingerprint) -> list[str]:
    return sorted(case.name for case in fingerprint.cases if case.volumes_mm3)


def _check_names(cases: Sequence[str], labelled: Sequence[str]) -> None:
    for name in cases:
        if name not in labelled:
            message = "is not a labelled case of the dataset"
            raise FseftError(message, case=name, hint=did_you_mean(name, list(labelled)))


def _choose(pool: Sequence[str], test: Sequence[str], labelled: Sequence[str]) -> list[str]:
    """Returns the test cases: those named in `test`, or as many as it says, drawn from the pool."""
    count = min(DEFAULT_TEST_CASES, len(pool) // 2)
    if test:
        is_number = len(test) == 1 and test[0].isdecimal() and test[0] not in labelled
        count = int(test[0]) if is_number else 0
        if not count:
            _check_names(test, labelled)
            return sorted(set(test))
    shuffled = sorted(pool, key=lambda name: digest("test", name))
    if not count:
        hint = "Add cases, or set `test_images` and `test_labels`."
        raise FseftError("1 labelled case is too few", hint=hint)
    return sorted(shuffled[:count])


def _duplicates(cases: Collection[str], fingerprint: Fingerprint) -> set[str]:
    """Returns the cases whose scan has the same voxels as one of these."""
    voxels = {case.voxels for case in fingerprint.cases if case.name in cases}
    voxels.discard("")  # not recorded in fingerprints of the first release
    return {case.name for case in fingerprint.cases if case.voxels in voxels}


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
    """Tests on separate scans; all are read once, so that none fails after a training.

    Args:
        images: Folder of scans.
        labels: Folder of their labels; the structures are those of `dataset.json` in or above it,
            otherwise those of the dataset.
        dataset: The dataset to draw training cases from.
        fingerprint: Its fingerprint.
        structures: Structures to score.
        cases: Draw training cases from these only; empty for all labelled cases. Test scans among
            them are excluded.
        k: Number of training cases that must remain.

    Raises:
        FseftError: No scan has a label, a file is damaged, a label is not on the grid of its scan,
            or a structure is missing in the labels.
    """
    references = _references(labels, dataset, structures)
    channels = len(dataset.channels)
    all_scans = gather_scans([images], dataset.channels)
    scans = _with_label(all_scans, references, images)
    files = {name: references.files[name] for name in scans}
    voxels = {_check_scan(name, scan, files[name], channels) for name, scan in scans.items()}
    scored = {case.name for case in fingerprint.cases if case.voxels in voxels}
    contents = [
        (name, content_digest(scan), content_digest(files[name])) for name, scan in scans.items()
    ]
    pool = sorted(set(cases) or set(_labelled(fingerprint)))
    return TestSplit(
        scans,
        replace(references, files=files),
        pool=_remaining(pool, scored, k, len(scans)),
        key=digest(
            contents,
            references.values,
            *_rules(references),
            *_lists(references),
        ),
        unmatched=tuple(sorted(all_scans.keys() ^ references.files.keys())),
    )


def _with_label(
    scans: Mapping[str, tuple[Path, ...]], references: ReferenceLabels, images: Path
) -> dict[str, tuple[Path, ...]]:
    """Returns the scans of a folder that have a label."""
    labelled = {name: files for name, files in scans.items() if name in references.files}
    if not labelled:
        message = "no scan has a label of the same name"
        raise FseftError(message, file=images, hint="Give the folder of their labels.")
    return labelled


def _references(labels: Path, dataset: Dataset, structures: Collection[str]) -> ReferenceLabels:
    """Reads the reference labels, with their own structures or those of the dataset.

    The rules of the dataset on slices and missing labels apply to them too, and its ignore label
    where they have none.
    """
    rules = dataset.annotation
    references = read_references(
        labels.absolute(),
        annotated_slices=rules.slices,
        missing_label=dataset.missing_label,
    )
    values = references.values
    if values is None:
        values = dict(dataset.labels)
        references = replace(references, annotation=rules, regions=dict(dataset.regions))
    own = references.annotation
    taken = {own.background, *values.values()}.union(*references.regions.values())
    if own.ignore is None and rules.ignore not in taken:
        own = own.model_copy(update={"ignore": rules.ignore})
        references = replace(references, annotation=own)
    for name in structures:
        if name not in values:
            message = f"the labels have no structure {name!r}"
            raise FseftError(message, file=labels, hint=did_you_mean(name, list(values)))
    return replace(references, values=values)


def _rules(references: ReferenceLabels) -> list[object]:
    """Returns what the scores depend on of the voxels that count, and of regions."""
    annotation = references.annotation
    others = annotation.model_dump(exclude={"ignore"}, exclude_defaults=True)
    missing = references.missing_label
    parts = (others, references.regions, missing if missing != "absent" else "")
    return [annotation.ignore, *(part for part in parts if part)]


def _check_scan(name: str, scan: tuple[Path, ...], label: Path, channels: int) -> str:
    """Checks that a label is on the grid of its scan, and returns the digest of its voxels."""
    volume = read_volume(scan[0] if len(scan) == 1 else scan, channels=channels, case=name)
    stored = read_labels(label, case=name)
    # Converters from DICOM may write a label with another axis order than its image.
    _, geometry = reorient(stored.array, stored.geometry, volume.geometry.orientation)
    difference = geometry_mismatch(volume.geometry, geometry)
    if difference:
        message = f"is not on the grid of its scan {scan[0].name}: {difference}"
        hint = "Draw or resample the label on the grid of the scan."
        raise FseftError(message, case=name, file=label, hint=hint)
    return voxels_digest(volume)


def _remaining(
    cases: Sequence[str], excluded: Collection[str], k: int, test_cases: int
) -> tuple[str, ...]:
    """Returns the cases to draw training cases from."""
    remaining = tuple(name for name in cases if name not in excluded)
    if len(remaining) < k:
        labelled = pluralise(len(cases), "labelled case")
        raise FseftError(
            f"k is {k}, but only {len(remaining)} of {labelled} remain to train on, as "
            f"{test_cases} are scored",
            hint="Use a smaller `k` or `test`, or set `test_images` and `test_labels`.",
        )
    return remaining


def _label_map(case: Case, channels: Sequence[str], converted: Path) -> Path:
    """Returns the label map of a case; written to `converted` if its labels are masks or slices."""
    if isinstance(case.label, dict) or case.label is None or case.label.is_dir():
        stored = case.model_copy(update={"annotation": FULLY_ANNOTATED})
        labels = read_case_labels(stored, read_case(case, channels))
        write_labels(converted, labels.array[0], labels.geometry)
        return converted
    return case.label.absolute()
