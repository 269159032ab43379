"""The fingerprint of a dataset: the stored one while no file has changed, else a new one."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from fseft.documents import Fingerprint
from fseft.parallel import map_cases
from fseft.store import read_document, write_document

if TYPE_CHECKING:
    from collections.abc import Callable

    from fseft.documents import Dataset
    from fseft.parallel import Workers
    from fseft.store import Store


def measure_dataset(
    dataset: Dataset,
    store: Store,
    *,
    workers: Workers = 1,
    progress: Callable[[str], None] | None = None,
) -> Fingerprint:
    """The dataset's fingerprint: the stored one if no file has changed, else a new one, which is stored.

    Raises:
        FseftError: A case is broken; all others were looked at before.
    """
    from fseft.volume.fingerprint import case_content, combine, dataset_content, measure_case

    cases = {case.name: case for case in dataset.cases}
    contents = map_cases(case_content, cases)
    path = store.fingerprint(dataset.name)
    if path.is_file():
        known = read_document(path, Fingerprint)
        if known.content == dataset_content(dataset, contents):
            return known
    body = not dataset.labelled
    measure = partial(measure_case, channels=dataset.channels, labels=dataset.labels, body=body)
    measurements = map_cases(measure, cases, workers=workers, done=progress)
    fingerprint = combine(dataset, list(measurements.values()), contents)
    write_document(path, fingerprint)
    return fingerprint
