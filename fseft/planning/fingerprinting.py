"""Measures a dataset, or loads its stored fingerprint while no file has changed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

from fseft.parallel import map_cases, map_in_threads
from fseft.schemas import ClassFingerprint, Fingerprint
from fseft.temporaries import remove_leftovers
from fseft.workspace import digest, read_document, write_document

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from fseft.parallel import Workers
    from fseft.schemas import Case, CaseFingerprint, Dataset
    from fseft.volume.fingerprint import CaseMeasurement
    from fseft.workspace import Workspace

_CASES = "cases"  # folder of the measurements of single cases


def fingerprint_dataset(
    dataset: Dataset,
    store: Workspace,
    *,
    workers: Workers = 1,
    progress: Callable[[str], None] | None = None,
) -> Fingerprint:
    """Returns the fingerprint of a dataset; only changed files are measured again.

    Measurements of single cases are stored as well, so that a changed case does not repeat the
    others.

    Args:
        dataset: Cases to measure.
        store: Workspace, in which the fingerprint is stored.
        workers: Processes, or the address of a dask scheduler.
        progress: Called with the name of each measured case.

    Raises:
        FseftError: A case is broken; the measurements of all others are stored.
    """
    from fseft.volume.case_files import case_content
    from fseft.volume.fingerprint import combine_measurements, dataset_content

    contents = map_in_threads(case_content, {case.name: case for case in dataset.cases})
    path = store.fingerprint(dataset.name)
    _remove_leftovers(path.parent)
    if path.is_file():
        stored = read_document(path, Fingerprint)
        if stored.content == dataset_content(dataset, contents):
            return stored
    folder = path.parent.absolute()
    # Without any label, intensities are those of the body.
    body = not dataset.labelled
    files = {
        name: _measurement_file(folder, dataset, content, body)
        for name, content in contents.items()
    }
    cases = {case.name: (case, contents[case.name], files[case.name]) for case in dataset.cases}
    measure = partial(
        _load_or_measure,
        channels=dataset.channels,
        labels=dataset.labels,
        body=body,
        regions=dataset.regions,
    )
    measurements = map_cases(measure, cases, workers=workers, progress=progress)
    fingerprint = combine_measurements(dataset, list(measurements.values()), contents)
    write_document(path, fingerprint)
    _delete_outdated(folder / _CASES, files.values())
    return fingerprint


@dataclass(frozen=True)
class TrainingLabels:
    """The labels that a training may use: structures of some cases.

    Attributes:
        cases: Names of the training cases.
        structures: Names of the structures to learn.
    """

    cases: frozenset[str]
    structures: frozenset[str]


def restrict_labels(fingerprint: Fingerprint, labels: TrainingLabels) -> Fingerprint:
    """Returns the fingerprint as if only the training labels existed.

    Args:
        fingerprint: Fingerprint of all cases.
        labels: Cases and structures whose volumes and extents are kept.
    """
    cases = tuple(_restrict_case(case, labels) for case in fingerprint.cases)
    classes = {
        name: _summarise_structure(name, structure.id, cases)
        for name, structure in fingerprint.classes.items()
    }
    return fingerprint.model_copy(update={"cases": cases, "classes": classes})


def _restrict_case(case: CaseFingerprint, labels: TrainingLabels) -> CaseFingerprint:
    known = labels.structures if case.name in labels.cases else frozenset()
    restricted = {
        "volumes_mm3": {name: case.volumes_mm3[name] for name in case.volumes_mm3.keys() & known},
        "extents_mm": {name: case.extents_mm[name] for name in case.extents_mm.keys() & known},
    }
    return case.model_copy(update=restricted)


def _summarise_structure(
    name: str, value: int, cases: Sequence[CaseFingerprint]
) -> ClassFingerprint:
    """Summarises a structure over the cases that have it."""
    from fseft.volume.fingerprint import permute_to_orientation

    present = [case for case in cases if name in case.volumes_mm3]
    if not present:
        return ClassFingerprint(id=value, cases=0)
    extents = [permute_to_orientation(case.extents_mm[name], case.orientation) for case in present]
    i, j, k = (max(sides) for sides in zip(*extents, strict=True))
    return ClassFingerprint(
        id=value,
        cases=len(present),
        median_volume_mm3=median(case.volumes_mm3[name] for case in present),
        maximum_extent_mm=(i, j, k),
    )


def _remove_leftovers(folder: Path) -> None:
    """Removes what killed processes have left among the fingerprints of a dataset."""
    remove_leftovers(folder)
    remove_leftovers(folder / _CASES)


def _measurement_file(folder: Path, dataset: Dataset, content: str, body: bool) -> Path:
    """Returns the file of the measurement of a case, named after all that it depends on."""
    from fseft.volume.fingerprint import FORMAT

    labels = sorted(dataset.labels.items())
    regions = [dataset.regions] if dataset.regions else []
    key = digest(FORMAT, content, list(dataset.channels), labels, body, *regions)
    return folder / _CASES / f"{key}.npz"


def _load_or_measure(
    case_content_and_file: tuple[Case, str, Path],
    *,
    channels: Sequence[str],
    labels: Mapping[str, int],
    body: bool,
    regions: Mapping[str, tuple[int, ...]],
) -> CaseMeasurement:
    from fseft.volume.case_files import check_unchanged
    from fseft.volume.fingerprint import measure_case
    from fseft.volume.measurements import read_measurement, write_measurement

    case, content, file = case_content_and_file
    if stored := read_measurement(file):
        return replace(stored, name=case.name)
    measurement = measure_case(case, channels=channels, labels=labels, body=body, regions=regions)
    check_unchanged(case, content)
    write_measurement(file, measurement)
    return measurement


def _delete_outdated(folder: Path, current: Iterable[Path]) -> None:
    digits = "[0-9a-f]" * 16  # of a key; other files are not of fseft
    for file in set(folder.glob(f"{digits}.npz")) - set(current):
        file.unlink(missing_ok=True)
