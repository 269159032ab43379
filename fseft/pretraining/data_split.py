"""Split of preprocessed datasets into training and validation, with numbered structures."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fseft.errors import FseftError, pluralise
from fseft.learn.sampling.multi_dataset_sampler import DatasetSource, PartiallyLabelledCase
from fseft.learn.sampling.patch_sampler import CropSource
from fseft.workspace import digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from fseft.planning.label_presence import Structures
    from fseft.planning.preprocessing import Preprocessed
    from fseft.pretraining.configure import PretrainRequest
    from fseft.schemas import Contract, Preprocessing

logger = logging.getLogger(__name__)

RANGES = {"spacing_range_mm", "structure_range_voxels"}
"""Fields of a contract that follow from the datasets."""


@dataclass(frozen=True)
class TrainingDatasets:
    """Datasets of a pre-training.

    Attributes:
        classes: Structures that the model learns, in the order of its outputs.
        contract: Preprocessing that the model expects.
        training: The datasets without the held-out cases.
        held_out: The same datasets with the held-out cases only.
        key: Hash of the content of all cases and of their annotations.
    """

    classes: tuple[str, ...]
    contract: Contract
    training: tuple[DatasetSource, ...]
    held_out: tuple[DatasetSource, ...]
    key: str


@dataclass(frozen=True)
class PreprocessedDataset:
    """A dataset on the grid of the new model.

    Attributes:
        folder: Folder of the dataset.
        name: Name of the dataset.
        labels: Structure -> label value in the arrays.
        annotated: Case -> annotated structures.
        drawn: Case -> structures with voxels.
        contents: Case -> hash of its files.
        preprocessing: Grid and intensities of the arrays.
        arrays: The preprocessed cases.
    """

    folder: Path
    name: str
    labels: Mapping[str, int]
    annotated: Mapping[str, Structures]
    drawn: Mapping[str, Structures]
    contents: Mapping[str, str]
    preprocessing: Preprocessing
    arrays: Preprocessed


def split_datasets(
    datasets: Sequence[PreprocessedDataset], contract: Contract, request: PretrainRequest
) -> TrainingDatasets:
    """Numbers the structures, and decides which cases are held out.

    Args:
        datasets: The datasets on the grid of the new model.
        contract: Preprocessing that the model expects.
        request: Options of the pre-training.

    Raises:
        FseftError: A dataset annotates none of the structures in the cases that remain.
    """
    classes = _classes(datasets)
    sources = [_source(dataset, classes, request) for dataset in datasets]
    for dataset, source in zip(datasets, sources, strict=True):
        unannotated = len(dataset.annotated) - len(source.cases)
        if unannotated:
            count = pluralise(unannotated, "case")
            logger.warning("%s: %s left out, without annotated structures", dataset.name, count)
    held_out = _held_out_cases(datasets, sources, request.validation_fraction)
    # The order and form of the parts must not change: the key is stored with models.
    key = digest(
        classes,
        [(item.name, item.contents, _sorted_labels(item.labels)) for item in datasets],
        [
            (case.name, case.annotated, case.name in held_out)
            for source in sources
            for case in source.cases
        ],
        *([contract.model_dump(mode="json", exclude=RANGES)] if request.window is None else []),
    )
    return TrainingDatasets(
        classes=classes,
        contract=contract,
        training=_select_cases(sources, lambda case: case.name not in held_out),
        held_out=_select_cases(sources, lambda case: case.name in held_out),
        key=key,
    )


def _sorted_labels(labels: Mapping[str, int]) -> list[tuple[int, str]]:
    return sorted((value, name) for name, value in labels.items())


def _classes(datasets: Sequence[PreprocessedDataset]) -> tuple[str, ...]:
    """Structures that the model learns: all requested structures with voxels in any case.

    Raises:
        FseftError: A dataset annotates none of them in the cases that are not duplicates.
    """
    for dataset in datasets:
        if not unite(dataset.annotated.values()):
            raise FseftError(
                "annotates none of the structures in those of its cases that are in no dataset "
                "before it",
                file=dataset.folder,
                hint="Leave it out.",
            )
    return tuple(sorted(unite(case for item in datasets for case in item.drawn.values())))


def _source(
    dataset: PreprocessedDataset, classes: Sequence[str], request: PretrainRequest
) -> DatasetSource:
    """Source of crops of a dataset; cases without annotated structures are left out."""
    numbers = {name: number for number, name in enumerate(classes, start=1)}
    always = frozenset(classes) if request.masking == "none" else frozenset()

    def numbered(structures: Structures) -> tuple[int, ...]:
        return tuple(sorted(numbers[name] for name in structures if name in numbers))

    crops = CropSource(
        request.patch_size,
        dataset.preprocessing.intensity,
        dataset.preprocessing.modality,
        {value: numbers[name] for name, value in dataset.labels.items() if name in numbers},
        padding=dataset.preprocessing.padding,
    )
    cases = [
        PartiallyLabelledCase(
            name=_case_name(dataset, case),
            cached=dataset.arrays.open(case),
            drawn=numbered(dataset.drawn[case]),
            annotated=numbered(annotated | always),
        )
        for case, annotated in dataset.annotated.items()
    ]
    return DatasetSource(dataset.name, crops, tuple(case for case in cases if case.annotated))


def _case_name(dataset: PreprocessedDataset, case: str) -> str:
    return f"case {case} of {dataset.name}"


def _held_out_cases(
    datasets: Sequence[PreprocessedDataset], sources: Sequence[DatasetSource], fraction: float
) -> set[str]:
    """Cases for validation: those whose content has a low hash.

    A case stays in its part when other cases are added or removed, and is never used for training
    in one run and for validation in another. Training keeps at least one case with each structure
    of a dataset.
    """
    contents = {
        _case_name(dataset, case): content
        for dataset in datasets
        for case, content in dataset.contents.items()
    }
    held_out = set()
    for source in sources:
        remaining = Counter(index for case in source.cases for index in (0, *case.drawn))
        for case in source.cases:
            content, structures = contents[case.name], (0, *case.drawn)
            is_low = int(content, 16) < fraction * 16 ** len(content)
            if is_low and all(remaining[index] > 1 for index in structures):
                held_out.add(case.name)
                remaining.subtract(structures)
    return held_out


def _select_cases(
    sources: Sequence[DatasetSource], predicate: Callable[[PartiallyLabelledCase], bool]
) -> tuple[DatasetSource, ...]:
    """Sources with the matching cases only; sources without any are left out."""
    selected = []
    for source in sources:
        cases = tuple(case for case in source.cases if predicate(case))
        if cases:
            selected.append(replace(source, cases=cases))
    return tuple(selected)


def unite(structures: Iterable[Structures]) -> Structures:
    """Returns the union of sets of structures."""
    return frozenset().union(*structures)
