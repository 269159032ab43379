"""Datasets of a pre-training: preprocessed in one way, without duplicates, some cases held out."""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from fseft.errors import FseftError
from fseft.experiment.callbacks import Callbacks
from fseft.model_zoo.catalogue import FoundationModel, scratch_card
from fseft.planning.fingerprinting import fingerprint_dataset
from fseft.planning.label_presence import (
    annotated_structures,
    drawn_structures,
    missing_label_rules,
)
from fseft.planning.plan import plan_for
from fseft.planning.preprocessing import cache_folder, preprocess
from fseft.planning.spacing import native_spacing
from fseft.pretraining.data_split import (
    PreprocessedDataset,
    TrainingDatasets,
    split_datasets,
    unite,
)
from fseft.pretraining.duplicates import find_duplicates
from fseft.pretraining.label_space import harmonise_datasets, lesion_warnings
from fseft.pretraining.preflight import check_grid, check_window
from fseft.schemas import Contract, Intensity, PlanOptions
from fseft.temporaries import in_use
from fseft.volume.intensity import pool_intensity_statistics, select_intensity_scheme

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from fseft.parallel import Workers
    from fseft.planning.label_presence import Structures
    from fseft.planning.preprocessing import Preprocessed
    from fseft.pretraining.configure import PretrainRequest
    from fseft.pretraining.label_space import LabelMapping
    from fseft.schemas import Dataset, Fingerprint, MissingLabel, Modality, Plan
    from fseft.workspace import Workspace

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _MeasuredDataset:
    """A dataset with its fingerprint and plan; structures by the dataset's own names."""

    dataset: Dataset
    fingerprint: Fingerprint
    plan: Plan
    drawn: Mapping[str, Structures]
    annotated: Mapping[str, Structures]

    @property
    def name(self) -> str:
        return self.fingerprint.dataset


@dataclass(frozen=True)
class _StageNames(Callbacks):
    """Callbacks that add the name of the dataset to the stages of its preprocessing."""

    callbacks: Callbacks
    dataset: str

    def progress(
        self, description: str, total: int
    ) -> AbstractContextManager[Callable[[str], None]]:
        """Begins a stage such as `preprocess livers`."""
        return self.callbacks.progress(f"{description} {self.dataset}", total)


@dataclass(frozen=True)
class _Preparation:
    """Options and services that all steps of the preparation share."""

    request: PretrainRequest
    workspace: Workspace
    callbacks: Callbacks
    locks: ExitStack

    @property
    def workers(self) -> Workers:
        return self.request.cluster or self.request.workers


def prepare_training_datasets(
    request: PretrainRequest,
    workspace: Workspace,
    callbacks: Callbacks | None = None,
    locks: ExitStack | None = None,
) -> TrainingDatasets:
    """Fingerprints and preprocesses every dataset, and decides which cases are held out.

    Logs the mapping of each dataset's labels, and warns of oddities such as duplicate volumes.

    Args:
        request: Options of the pre-training.
        workspace: Workspace of fingerprints and preprocessed arrays.
        callbacks: Observer of the progress over cases.
        locks: No other process removes the arrays as long as it is open.

    Raises:
        FseftError: A dataset is broken or annotates none of the structures, or names of
            structures contradict each other.
    """
    preparation = _Preparation(request, workspace, callbacks or Callbacks(), locks or ExitStack())
    measured = _measure_datasets(preparation)
    duplicates = find_duplicates([dataset.fingerprint for dataset in measured])
    measured = [dataset for dataset in measured if dataset.drawn.keys() - duplicates[dataset.name]]
    mappings = _map_labels(measured, request.labels)
    fingerprints = [dataset.fingerprint for dataset in measured]
    check_window(fingerprints, request.window)
    check_grid(fingerprints, request)
    contract = _contract(request, fingerprints).model_copy(update=_ranges(measured, request))
    preprocessed = [
        _preprocess_dataset(dataset, mapping, duplicates[dataset.name], contract, preparation)
        for dataset, mapping in zip(measured, mappings, strict=True)
    ]
    return split_datasets(preprocessed, contract, request)


def _measure_datasets(preparation: _Preparation) -> list[_MeasuredDataset]:
    request = preparation.request
    names = [dataset.name for dataset in request.datasets]
    _check_unique_names(names)
    own = {dataset.name: dataset.missing_label for dataset in request.datasets}
    rules = missing_label_rules(request.missing_label, own)
    return [
        _measure_dataset(dataset, rules[dataset.name], preparation) for dataset in request.datasets
    ]


def _check_unique_names(names: Sequence[str]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            cause = f"{count} datasets have the name {name!r}"
            raise FseftError(cause, hint="Rename the folder of one of them.")


def _check_channels(dataset: Dataset) -> None:
    if dataset.channels[1:]:
        raise FseftError(
            f"has {len(dataset.channels)} channels ({', '.join(dataset.channels)}), and "
            "pre-training takes one",
            file=dataset.folder,
            hint="Make a dataset of one of them; `fseft adapt` takes several.",
        )


def _measure_dataset(
    dataset: Dataset, rule: MissingLabel, preparation: _Preparation
) -> _MeasuredDataset:
    _check_channels(dataset)
    workspace, workers = preparation.workspace, preparation.workers
    stage = preparation.callbacks.progress(f"measure {dataset.name}", len(dataset.cases))
    with stage as advance:
        fingerprint = fingerprint_dataset(dataset, workspace, workers=workers, progress=advance)
    for warning in fingerprint.warnings:
        logger.warning("%s: %s", dataset.name, warning)
    counted = {case.name for case in fingerprint.cases if case.annotated}
    drawn = {
        name: found for name, found in drawn_structures(fingerprint).items() if name in counted
    }
    if not drawn:
        raise FseftError(
            "has no labelled case",
            file=dataset.folder,
            hint="Pre-training needs labelled datasets.",
        )
    model = FoundationModel(scratch_card())
    # As fine as the files, on any device: the ranks of a distributed run must agree.
    spacing_mm, _ = native_spacing(fingerprint, model.card.contract.orientation)
    plan = plan_for(model, fingerprint, PlanOptions(spacing_mm=spacing_mm))
    annotated = annotated_structures(dataset, fingerprint, rule)
    return _MeasuredDataset(dataset, fingerprint, plan, drawn, annotated)


def _map_labels(
    datasets: Sequence[_MeasuredDataset], requested: Sequence[str]
) -> list[LabelMapping]:
    """Finds the common structures; logs the mapping of each dataset."""
    annotated = {dataset.name: unite(dataset.annotated.values()) for dataset in datasets}
    fingerprints = [dataset.fingerprint for dataset in datasets]
    mappings = harmonise_datasets(fingerprints, requested, annotated)
    by_name = dict(zip(annotated, mappings, strict=True))
    for name, mapping in by_name.items():
        logger.info("%s: %s", name, mapping)
    for warning in lesion_warnings(by_name):
        logger.warning("%s", warning)
    return mappings


def _contract(request: PretrainRequest, fingerprints: Sequence[Fingerprint]) -> Contract:
    """Preprocessing of the new model: CT in the requested window, or as suits all CT datasets."""
    intensity: dict[Modality, Intensity] = {
        fingerprint.modality: Intensity(scheme="zscore")
        for fingerprint in fingerprints
        if fingerprint.modality != "ct"
    }
    ct = [fingerprint for fingerprint in fingerprints if fingerprint.modality == "ct"]
    if ct and request.window:
        low, high = request.window
        intensity["ct"] = Intensity(scheme="window", low=low, high=high)
    elif ct:
        statistics = [item for fingerprint in ct for item in fingerprint.intensities]
        intensity["ct"] = pool_intensity_statistics(statistics)
    return Contract(
        spacing_mm=request.spacing_mm, intensity=intensity, patch_size=request.patch_size
    )


def _ranges(
    datasets: Sequence[_MeasuredDataset], request: PretrainRequest
) -> dict[str, tuple[float, float] | None]:
    """Ranges of the contract: voxel sides in mm, and sizes of structures in voxels."""
    sides_mm: list[float] = []
    sizes_voxels: list[float] = []
    for dataset in datasets:
        spacing_mm = request.spacing_mm or dataset.plan.preprocessing.spacing_mm
        sides_mm += spacing_mm
        sizes_voxels += [
            (structure.median_volume_mm3 / prod(spacing_mm)) ** (1 / 3)
            for structure in dataset.fingerprint.classes.values()
            if structure.median_volume_mm3
        ]
    return {
        "spacing_range_mm": None if request.spacing_mm else _rounded_range(sides_mm),
        "structure_range_voxels": _rounded_range(sizes_voxels),
    }


def _rounded_range(values: Sequence[float]) -> tuple[float, float]:
    return round(min(values), 2), round(max(values), 2)


def _preprocess_dataset(
    dataset: _MeasuredDataset,
    mapping: LabelMapping,
    duplicates: Collection[str],
    contract: Contract,
    preparation: _Preparation,
) -> PreprocessedDataset:
    """Preprocesses a dataset, and translates its own names of structures."""
    plan = _adjust_plan(dataset, contract, preparation.request)
    cases = [name for name in dataset.drawn if name not in duplicates]
    contents = {case.name: case.content for case in dataset.fingerprint.cases}
    arrays = _write_arrays(dataset, plan, cases, mapping, preparation)

    def translate(names: Iterable[str]) -> Structures:
        return unite(frozenset(mapping.names.get(name, ())) for name in names)

    def with_voxels(case: str) -> Structures:
        # One side of a divided pair may be empty, and small structures may vanish on a coarse grid.
        values = arrays.open(case).classes
        return frozenset(name for name, value in mapping.labels.items() if value in values)

    return PreprocessedDataset(
        folder=dataset.dataset.folder,
        name=dataset.name,
        labels=mapping.labels,
        annotated={case: translate(dataset.annotated[case]) for case in cases},
        drawn={case: translate(dataset.drawn[case]) & with_voxels(case) for case in cases},
        contents={case: contents[case] for case in cases},
        preprocessing=plan.preprocessing,
        arrays=arrays,
    )


def _write_arrays(
    dataset: _MeasuredDataset,
    plan: Plan,
    cases: Sequence[str],
    mapping: LabelMapping,
    preparation: _Preparation,
) -> Preprocessed:
    """Preprocesses the cases; no other process removes the arrays as long as `locks` is open."""
    folder = cache_folder(plan, preparation.workspace, mapping.pairs)
    preparation.locks.enter_context(in_use(folder))
    arrays = preprocess(
        dataset.dataset,
        plan,
        preparation.workspace,
        workers=preparation.workers,
        cases=cases,
        pairs=mapping.pairs,
        callbacks=_StageNames(preparation.callbacks, dataset.name),
    )
    measured = dataset.fingerprint.cases
    arrays.check_contents(case.content for case in measured if case.name in cases)
    return arrays


def _adjust_plan(dataset: _MeasuredDataset, contract: Contract, request: PretrainRequest) -> Plan:
    """Plan of a dataset, with the preprocessing of the new model."""
    fingerprint, preprocessing = dataset.fingerprint, dataset.plan.preprocessing
    intensity, _ = select_intensity_scheme(
        contract, fingerprint.modality, list(fingerprint.intensities)
    )
    update = {
        "spacing_mm": contract.spacing_mm or preprocessing.spacing_mm,
        "intensity": intensity,
        "patch_size": request.patch_size,
    }
    return dataset.plan.model_copy(
        update={"preprocessing": preprocessing.model_copy(update=update)}
    )
