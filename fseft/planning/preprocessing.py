"""Preprocess: every case of a dataset onto the network's grid, into the array cache."""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from fseft.errors import FseftError, did_you_mean, pluralise
from fseft.experiment.callbacks import Callbacks
from fseft.parallel import map_cases
from fseft.workspace import digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from fseft.parallel import Workers
    from fseft.schemas import Case, Dataset, Plan, Preprocessing
    from fseft.volume.laterality import LeftRightPair
    from fseft.volume.preprocessing import PreparedVolume
    from fseft.workspace import Workspace

logger = logging.getLogger(__name__)

_NAMED = 20  # cases that a warning names
_FORMAT = 3  # raised when the same input leads to other arrays


@dataclass(frozen=True)
class Preprocessed:
    """The result of `preprocess`.

    Attributes:
        folder: The cache, for `fseft.volume.cache.open_case(folder, case)`.
        processed: Cases that were preprocessed now.
        skipped: Cases that were preprocessed before, from the same files.
    """

    folder: Path
    processed: tuple[str, ...]
    skipped: tuple[str, ...]


def cache_folder(
    plan: Plan, workspace: Workspace, pairs: Mapping[int, LeftRightPair] | None = None
) -> Path:
    """Returns the folder for the arrays of a plan; patch size and intensities do not matter."""
    preprocessing = plan.preprocessing
    crop = "above -500" if preprocessing.modality == "ct" else "above minimum"
    divided = [
        [value, pair.left, pair.right, pair.expect_both]
        for value, pair in sorted((pairs or {}).items())
    ]
    key = digest(_FORMAT, preprocessing.orientation, preprocessing.spacing_mm, crop, *divided)
    return workspace.preprocessed(plan.dataset, key)


def preprocess(
    dataset: Dataset,
    plan: Plan,
    workspace: Workspace,
    *,
    workers: Workers = 1,
    cases: Iterable[str] | None = None,
    pairs: Mapping[int, LeftRightPair] | None = None,
    callbacks: Callbacks | None = None,
) -> Preprocessed:
    """Crops and resamples the cases of a dataset into the array cache, except those cached already.

    Args:
        dataset: The dataset.
        plan: How to preprocess it.
        workspace: Where the arrays are stored.
        workers: Processes, or the address of a dask scheduler.
        cases: Names of the cases to preprocess; None for all.
        pairs: Label values to divide into left and right; uncertain sides are logged as warnings.
        callbacks: Observe the progress.

    Returns:
        The folder of the cache, and which cases were preprocessed now.

    Raises:
        FseftError: The plan is for another dataset, a case is unknown or broken, or the disk is
            full. All other cases are preprocessed first.
    """
    if dataset.name != plan.dataset:
        cause = f"the plan is for the dataset {plan.dataset!r}, not for {dataset.name!r}"
        raise FseftError(cause, hint="Plan this dataset first.")
    selected = _select({case.name: case for case in dataset.cases}, cases)
    folder = cache_folder(plan, workspace, pairs)
    function = partial(
        _preprocess_case,
        folder=folder.absolute(),
        channels=dataset.channels,
        preprocessing=plan.preprocessing,
        pairs=pairs or {},
    )
    with (callbacks or Callbacks()).progress("preprocess", len(selected)) as advance:
        is_new = map_cases(function, selected, workers=workers, progress=advance)
    if pairs:
        _warn_of_uncertain_sides(folder, selected, dataset)
    return Preprocessed(
        folder=folder,
        processed=tuple(name for name in is_new if is_new[name]),
        skipped=tuple(name for name in is_new if not is_new[name]),
    )


def case_meta(prepared: PreparedVolume, content: str) -> dict[str, Any]:
    """Returns the metadata of a cached case, with its `GridTransform` as JSON."""
    return {
        "content": content,
        **prepared.to_json(),
        "spacing_mm": list(prepared.geometry.spacing_mm),
        **prepared.statistics(),
    }


def _select(cases: dict[str, Case], names: Iterable[str] | None) -> dict[str, Case]:
    if names is None:
        return cases
    selected = {}
    for name in names:
        if name not in cases:
            raise FseftError(f"unknown case {name!r}", hint=did_you_mean(name, list(cases)))
        selected[name] = cases[name]
    return selected


def _warn_of_uncertain_sides(folder: Path, cases: Iterable[str], dataset: Dataset) -> None:
    """Logs each doubt about left and right once, with the first of its cases."""
    from fseft.volume import cache

    structures = {str(value): name for name, value in dataset.labels.items()}
    affected: dict[tuple[str, str], list[str]] = defaultdict(list)
    for case in cases:
        for value, doubts in cache.open_case(folder, case).meta.get("doubts", {}).items():
            for doubt in doubts:
                affected[structures.get(str(value), str(value)), doubt].append(case)
    for (structure, doubt), names in affected.items():
        more = len(names) - _NAMED
        listed = ", ".join(names[:_NAMED]) + (
            f" and {pluralise(more, 'case')} more" if more > 0 else ""
        )
        logger.warning(
            "%s: %s: left and right of %r are uncertain: %s", dataset.name, listed, structure, doubt
        )


def _preprocess_case(
    case: Case,
    *,
    folder: Path,
    channels: tuple[str, ...],
    preprocessing: Preprocessing,
    pairs: Mapping[int, LeftRightPair],
) -> bool:
    """Preprocess a case; False if the cache holds it already."""
    from fseft.volume import cache
    from fseft.volume.fingerprint import case_content, read_case, read_case_labels
    from fseft.volume.laterality import split_labels
    from fseft.volume.preprocessing import preprocess_volume

    content = case_content(case)
    if _is_cached(folder, case.name, content):
        return False
    volume = read_case(case, channels)
    labels = None if case.label is None else read_case_labels(case, volume)
    doubts: dict[int, tuple[str, ...]] = {}
    if labels is not None and pairs:
        labels, doubts = split_labels(labels, volume, pairs, preprocessing.modality)
    prepared = preprocess_volume(
        volume,
        labels,
        orientation=preprocessing.orientation,
        spacing_mm=preprocessing.spacing_mm,
        modality=preprocessing.modality,
    )
    meta = {**case_meta(prepared, content), **({"doubts": doubts} if doubts else {})}
    values = _label_values(prepared)
    cache.write_case(folder, case.name, prepared.image, prepared.label, meta, classes=values)
    return True


def _is_cached(folder: Path, name: str, content: str) -> bool:
    from fseft.volume import cache

    in_cache = cache.has_case(folder, name)
    return in_cache and cache.open_case(folder, name).meta.get("content") == content


def _label_values(prepared: PreparedVolume) -> list[int]:
    """Returns the label values that occur; names may change without the arrays."""
    from fseft.volume.label_values import present_values

    return [] if prepared.label is None else present_values(prepared.label)
