"""The fingerprint of a dataset: the stored one while no file has changed, else a new one."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from fseft.parallel import map_cases, map_in_threads
from fseft.schemas import Fingerprint
from fseft.workspace import digest, read_document, write_document

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from fseft.parallel import Workers
    from fseft.schemas import Case, Dataset
    from fseft.volume.fingerprint import CaseMeasurement
    from fseft.workspace import Workspace

_CASES = "cases"  # folder of what was measured on each


def fingerprint_dataset(
    dataset: Dataset,
    store: Workspace,
    *,
    workers: Workers = 1,
    progress: Callable[[str], None] | None = None,
) -> Fingerprint:
    """The dataset's fingerprint: the stored one if no file has changed, else a new one, which is stored.

    What is measured on each case is kept beside it, so that no case is measured again for the sake of others.

    Raises:
        FseftError: A case is broken; all others were measured before.
    """
    from fseft.volume.fingerprint import case_content, combine_measurements, dataset_content

    contents = map_in_threads(case_content, {case.name: case for case in dataset.cases})
    path = store.fingerprint(dataset.name)
    if path.is_file():
        known = read_document(path, Fingerprint)
        if known.content == dataset_content(dataset, contents):
            return known
    body = not dataset.labelled
    kept = {
        name: _place(path.parent.absolute(), dataset, content, body)
        for name, content in contents.items()
    }
    cases = {case.name: (case, kept[case.name]) for case in dataset.cases}
    measure = partial(_measured, channels=dataset.channels, labels=dataset.labels, body=body)
    measurements = map_cases(measure, cases, workers=workers, done=progress)
    fingerprint = combine_measurements(dataset, list(measurements.values()), contents)
    write_document(path, fingerprint)
    for old in set(path.parent.glob(f"{_CASES}/*")) - set(kept.values()):
        old.unlink(missing_ok=True)
    return fingerprint


def _place(folder: Path, dataset: Dataset, content: str, body: bool) -> Path:
    """Where the measurement of a case lies."""
    from fseft.volume.fingerprint import FORMAT

    key = digest(FORMAT, content, list(dataset.channels), sorted(dataset.labels.items()), body)
    return folder / _CASES / f"{key}.npz"


def _measured(
    case_and_place: tuple[Case, Path],
    *,
    channels: Sequence[str],
    labels: Mapping[str, int],
    body: bool,
) -> CaseMeasurement:
    from fseft.volume.fingerprint import measure_case
    from fseft.volume.measurements import read_measurement, write_measurement

    case, place = case_and_place
    if known := read_measurement(place):
        return replace(known, name=case.name)
    found = measure_case(case, channels=channels, labels=labels, body=body)
    write_measurement(place, found)
    return found
