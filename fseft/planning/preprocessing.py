"""Preprocess: every case of a dataset onto the network's grid, into the array cache."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from fseft.errors import FseftError, did_you_mean, pluralise
from fseft.parallel import map_cases
from fseft.planning.dataset_reading import read_dataset
from fseft.workspace import digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from fseft.parallel import Workers
    from fseft.schemas import Case, Dataset, Plan, Preprocessing
    from fseft.volume.laterality import LeftRightPair
    from fseft.volume.preprocessing import PreparedVolume
    from fseft.workspace import Workspace

_NAMED = 20  # cases in a warning
_FORMAT = 2  # raised when the same input gives other arrays


@dataclass(frozen=True)
class Preprocessed:
    """What was made.

    Attributes:
        folder: The cache, for `fseft.volume.cache.open_case(folder, case)`.
        done: Cases that were made now.
        skipped: Cases that were there already, made of the same files.
    """

    folder: Path
    done: tuple[str, ...]
    skipped: tuple[str, ...]


def cache_folder(
    plan: Plan, store: Workspace, pairs: Mapping[int, LeftRightPair] | None = None
) -> Path:
    """Where the arrays of a plan lie; plans that differ in patch or intensities alone share it."""
    chosen = plan.preprocessing
    crop = "above -500" if chosen.modality == "ct" else "above minimum"
    divided = [
        [value, pair.left, pair.right, pair.expect_both]
        for value, pair in sorted((pairs or {}).items())
    ]
    key = digest(_FORMAT, chosen.orientation, chosen.spacing_mm, crop, *divided)
    return store.preprocessed(plan.dataset, key)


def preprocess(
    folder: Path,
    plan: Plan,
    store: Workspace,
    *,
    workers: Workers = 1,
    cases: Iterable[str] | None = None,
    strict: bool = False,
    pairs: Mapping[int, LeftRightPair] | None = None,
    progress: Callable[[str], None] | None = None,
) -> Preprocessed:
    """Make the cached arrays of a dataset; what is there already, of the same files, stays.

    Args:
        folder: The dataset.
        plan: Says how.
        store: Says where.
        workers: Who does it.
        cases: Names of the cases to do; by default all.
        strict: As for `read_dataset`.
        pairs: Label values to divide into left and right; where that is doubtful, a warning tells.
        progress: Called with the name of each case that is done or skipped.

    Raises:
        FseftError: The plan is another dataset's, a case is unknown or broken, or the disk is full. The other
            cases are done all the same.
    """
    dataset = read_dataset(folder, strict=strict)
    if dataset.name != plan.dataset:
        raise FseftError(
            f"is not {plan.dataset!r}, for which the plan is", file=folder, hint="Plan it first."
        )
    wanted = _chosen({case.name: case for case in dataset.cases}, cases)
    target = cache_folder(plan, store, pairs)
    make = partial(
        _make,
        folder=target.absolute(),
        channels=dataset.channels,
        chosen=plan.preprocessing,
        pairs=pairs or {},
    )
    made = map_cases(make, wanted, workers=workers, done=progress)
    if pairs:
        _tell_doubts(target, wanted, dataset)
    return Preprocessed(
        folder=target,
        done=tuple(name for name, new in made.items() if new),
        skipped=tuple(name for name, new in made.items() if not new),
    )


def case_meta(prepared: PreparedVolume, content: str) -> dict[str, Any]:
    """What a cached case remembers; `Frame.from_json` reads the way back from it."""
    return {
        "content": content,
        **prepared.to_json(),
        "spacing_mm": list(prepared.geometry.spacing_mm),
        **prepared.statistics(),
    }


def _chosen(known: dict[str, Case], names: Iterable[str] | None) -> dict[str, Case]:
    if names is None:
        return known
    wanted = list(names)
    for name in wanted:
        if name not in known:
            raise FseftError(f"there is no case {name!r}", hint=did_you_mean(name, list(known)))
    return {name: known[name] for name in wanted}


def _tell_doubts(folder: Path, cases: Iterable[str], dataset: Dataset) -> None:
    """Warn of each doubt about a side, with the cases, the first of them where there are many."""
    from fseft.volume import cache

    names = {value: name for name, value in dataset.labels.items()}
    doubted: dict[tuple[str, str], list[str]] = {}
    for case in cases:
        for value, doubts in cache.open_case(folder, case).meta.get("doubts", {}).items():
            for doubt in doubts:
                doubted.setdefault((names.get(int(value), value), doubt), []).append(case)
    for (name, doubt), having in doubted.items():
        more = (
            f" and {pluralise(len(having) - _NAMED, 'case')} more" if len(having) > _NAMED else ""
        )
        told = f"{dataset.name}: {', '.join(having[:_NAMED])}{more}"
        warnings.warn(f"{told}: left and right of {name!r} are uncertain: {doubt}", stacklevel=3)


def _make(
    case: Case,
    *,
    folder: Path,
    channels: tuple[str, ...],
    chosen: Preprocessing,
    pairs: Mapping[int, LeftRightPair],
) -> bool:
    """Make one case; False if it was there already."""
    from fseft.volume import cache
    from fseft.volume.fingerprint import case_content, read_case, read_case_labels
    from fseft.volume.laterality import split_labels
    from fseft.volume.preprocessing import preprocess_volume

    content = case_content(case)
    if (
        cache.has_case(folder, case.name)
        and cache.open_case(folder, case.name).meta.get("content") == content
    ):
        return False
    volume = read_case(case, channels)
    labels = None if case.label is None else read_case_labels(case, volume)
    doubts: dict[int, tuple[str, ...]] = {}
    if labels is not None and pairs:
        labels, doubts = split_labels(labels, volume, pairs, chosen.modality)
    prepared = preprocess_volume(
        volume,
        labels,
        orientation=chosen.orientation,
        spacing_mm=chosen.spacing_mm,
        modality=chosen.modality,
    )
    meta = {**case_meta(prepared, content), **({"doubts": doubts} if doubts else {})}
    cache.write_case(
        folder, case.name, prepared.image, prepared.label, meta, classes=_values(prepared)
    )
    return True


def _values(prepared: PreparedVolume) -> list[int]:
    """The label values that occur: names may come and go without touching the arrays."""
    import numpy as np

    return (
        []
        if prepared.label is None
        else np.flatnonzero(np.bincount(prepared.label.ravel()))[1:].tolist()
    )
