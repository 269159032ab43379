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
from fseft.temporaries import in_use, remove_leftovers
from fseft.workspace import digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from fseft.parallel import Workers
    from fseft.schemas import Case, Dataset, Plan, Preprocessing
    from fseft.volume.cache import CachedCase
    from fseft.volume.laterality import LeftRightPair
    from fseft.volume.preprocessing import PreparedVolume
    from fseft.workspace import Workspace

logger = logging.getLogger(__name__)

_NAMED = 20  # cases that a warning names
_FORMAT = 5  # raised when the same input leads to other arrays


@dataclass(frozen=True)
class Preprocessed:
    """The result of `preprocess`.

    Attributes:
        folder: The cache.
        processed: Cases that were preprocessed now.
        skipped: Cases that were preprocessed before, from the same files.
        contents: Case -> key of the files that its arrays were made from.
    """

    folder: Path
    processed: tuple[str, ...]
    skipped: tuple[str, ...]
    contents: Mapping[str, str]

    def open(self, case: str) -> CachedCase:
        """Opens the arrays of a case, which no other process changes."""
        from fseft.volume.cache import open_case

        return open_case(self.folder, case, self.contents[case])

    def check_contents(self, expected: Iterable[str]) -> None:
        """Checks that the arrays were made from the files that were measured before.

        Args:
            expected: Key of the files of each case, in any order.

        Raises:
            FseftError: A file has changed.
        """
        if sorted(self.contents.values()) != sorted(expected):
            raise FseftError("the files of a case have changed meanwhile", hint="Run again.")


def cache_folder(
    plan: Plan, workspace: Workspace, pairs: Mapping[int, LeftRightPair] | None = None
) -> Path:
    """Returns the folder for the arrays of a plan; the patch size does not matter.

    Args:
        plan: Its dataset, spacing, orientation and intensity conventions determine the folder.
        workspace: Workspace of the cache.
        pairs: Voxel value -> pair to split into left and right.
    """
    preprocessing = plan.preprocessing
    crop = "above -500" if preprocessing.modality == "ct" else "above minimum"
    divided = [
        [value, pair.left, pair.right, pair.expect_both]
        for value, pair in sorted((pairs or {}).items())
    ]
    key = digest(
        _FORMAT,
        preprocessing.orientation,
        preprocessing.spacing_mm,
        crop,
        *divided,
        *_conventions(preprocessing).items(),
    )
    return workspace.preprocessed(plan.dataset, key)


def _conventions(preprocessing: Preprocessing) -> dict[str, Any]:
    """Returns what arrays depend on, apart from grid and modality, where it is not the default."""
    conventions = preprocessing.conventions
    regions = [scheme.region for scheme in preprocessing.intensity]
    if set(regions) != {"crop"}:
        conventions["regions"] = regions
    percentiles = [
        (scheme.percentiles, scheme.cube_mm)
        for scheme in preprocessing.intensity
        if scheme.percentiles
    ]
    if percentiles:
        conventions["percentiles"] = percentiles
    if preprocessing.crop == "head":
        conventions["schemes"] = [scheme.scheme for scheme in preprocessing.intensity]
    conventions.pop("window_size", None)
    if preprocessing.channel_mode == "first":
        conventions["channels"] = "first"
    if preprocessing.clip_first:
        conventions["limits"] = [(scheme.low, scheme.high) for scheme in preprocessing.intensity]
    return conventions


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
    remove_leftovers(folder)
    function = partial(
        _preprocess_case,
        folder=folder.absolute(),
        channels=dataset.channels,
        preprocessing=plan.preprocessing,
        pairs=pairs or {},
    )
    stage = (callbacks or Callbacks()).progress("preprocess", len(selected))
    with in_use(folder), stage as advance:
        results = map_cases(function, selected, workers=workers, progress=advance)
    preprocessed = Preprocessed(
        folder=folder,
        processed=tuple(name for name, (_, is_new) in results.items() if is_new),
        skipped=tuple(name for name, (_, is_new) in results.items() if not is_new),
        contents={name: content for name, (content, _) in results.items()},
    )
    _log_results(preprocessed, dataset, pairs)
    return preprocessed


def _log_results(
    cases: Preprocessed, dataset: Dataset, pairs: Mapping[int, LeftRightPair] | None
) -> None:
    """Logs how many cases were cached, and pairs that were divided with a doubt."""
    reused, total = len(cases.skipped), len(cases.contents)
    logger.debug("%s: %d of %d cases were preprocessed before", cases.folder, reused, total)
    if pairs:
        _warn_of_uncertain_sides(cases, dataset)


def case_meta(prepared: PreparedVolume, content: str) -> dict[str, Any]:
    """Returns the metadata of a cached case, with its `GridTransform` as JSON.

    Args:
        prepared: The preprocessed case.
        content: Content key of its files.
    """
    return {
        "content": content,
        **prepared.to_json(),
        "spacing_mm": list(prepared.geometry.spacing_mm),
        **prepared.statistics(),
        **({"partly_annotated": True} if _is_partly_annotated(prepared) else {}),
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


def _warn_of_uncertain_sides(preprocessed: Preprocessed, dataset: Dataset) -> None:
    """Logs each doubt about left and right once, with the first of its cases."""
    structures = {str(value): name for name, value in dataset.labels.items()}
    affected: dict[tuple[str, str], list[str]] = defaultdict(list)
    for case in preprocessed.contents:
        for value, doubts in preprocessed.open(case).meta.get("doubts", {}).items():
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
) -> tuple[str, bool]:
    """Preprocesses a case; returns the key of its files, and whether the cache did not hold it."""
    from fseft.volume import cache
    from fseft.volume.case_files import case_content, check_unchanged, read_case, read_case_labels
    from fseft.volume.laterality import split_labels
    from fseft.volume.preprocessing import preprocess_volume

    content = case_content(case)
    if cache.has_case(folder, case.name, content):
        return content, False
    volume = read_case(case, channels)
    labels = None if case.label is None else read_case_labels(case, volume)
    doubts: dict[int, tuple[str, ...]] = {}
    if labels is not None and pairs:
        labels, doubts = split_labels(labels, volume, pairs, preprocessing.modality)
    prepared = preprocess_volume(volume, labels, preprocessing)
    check_unchanged(case, content)
    meta = {**case_meta(prepared, content), **({"doubts": doubts} if doubts else {})}
    cache.write_case(
        folder,
        case.name,
        prepared.image,
        prepared.label,
        meta,
        classes=_label_values(prepared),
        content=content,
    )
    return content, True


def _is_partly_annotated(prepared: PreparedVolume) -> bool:
    from fseft.volume.annotation import is_annotated

    return prepared.label is not None and not bool(is_annotated(prepared.label).all())


def _label_values(prepared: PreparedVolume) -> list[int]:
    """Returns the values of structures that occur; names may change without the arrays."""
    from fseft.volume.label_values import UNANNOTATED, present_values

    if prepared.label is None:
        return []
    return [value for value in present_values(prepared.label) if value != UNANNOTATED]
