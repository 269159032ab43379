"""The assembly of datasets that a model is pre-trained on: each prepared, none twice, some cases held out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fseft.errors import FseftError, pluralise
from fseft.experiment.callbacks import Callbacks
from fseft.learn.sampling.multi_dataset_sampler import DatasetSource, PartiallyLabelledCase
from fseft.learn.sampling.patch_sampler import CropSource
from fseft.model_zoo.catalogue import FoundationModel, scratch_card
from fseft.planning.dataset_reading import read_dataset
from fseft.planning.fingerprinting import fingerprint_dataset
from fseft.planning.plan import plan_for
from fseft.planning.preprocessing import preprocess
from fseft.pretraining.configure import Watcher
from fseft.pretraining.duplicates import find_duplicates
from fseft.pretraining.label_presence import absent_means, annotated_structures, drawn_structures
from fseft.pretraining.label_space import agree_on_structures, lesions_apart
from fseft.pretraining.preflight import check_grid, check_window
from fseft.schemas import Contract, Intensity
from fseft.volume.cache import open_case
from fseft.volume.intensity import pool_intensity_statistics, select_intensity_scheme
from fseft.workspace import digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from fseft.parallel import Workers
    from fseft.pretraining.configure import PretrainRequest
    from fseft.pretraining.label_presence import AbsentMeans
    from fseft.pretraining.label_space import LabelMapping
    from fseft.schemas import Dataset, Fingerprint, Modality, Plan, Preprocessing
    from fseft.workspace import Workspace


@dataclass(frozen=True)
class TrainingDatasets:
    """What there is to learn from.

    Attributes:
        classes: What the model will know, in the order of its outputs.
        contract: What it will expect.
        training: The datasets, without what is held out.
        held_out: The same datasets, of which only the cases for validation.
        key: Of the content of all cases and of what is annotated in them.
    """

    classes: tuple[str, ...]
    contract: Contract
    training: tuple[DatasetSource, ...]
    held_out: tuple[DatasetSource, ...]
    key: str


@dataclass(frozen=True)
class _Prepared:
    """A dataset on the new model's grid.

    Attributes:
        names: Stored label value -> class.
        annotated: Case -> the classes that count in it.
        drawn: Case -> those of which there are voxels.
        contents: Case -> key of its files.
    """

    folder: Path
    name: str
    names: dict[int, str]
    annotated: dict[str, frozenset[str]]
    drawn: dict[str, frozenset[str]]
    contents: dict[str, str]
    preprocessing: Preprocessing
    cache: Path


def assemble(
    request: PretrainRequest, store: Workspace, watcher: Watcher | None = None
) -> TrainingDatasets:
    """Plan and preprocess every dataset under the new model's contract, and decide which cases are held out.

    Args:
        request: What was asked for.
        store: Where fingerprints and arrays lie.
        watcher: Told what the names of each dataset were taken for, what is odd about it, which volumes are there
            twice, and how far it is.

    Raises:
        FseftError: A dataset is broken or annotates none of the classes, or names contradict each other.
    """
    watcher = watcher or Watcher()
    datasets = [read_dataset(folder) for folder in request.folders]
    _refuse_namesakes(datasets)
    rules = absent_means(request.absent_means, [dataset.name for dataset in datasets])
    planned = [
        _plan(folder, dataset, rules[dataset.name], request, store, watcher)
        for folder, dataset in zip(request.folders, datasets, strict=True)
    ]
    again = find_duplicates([one.fingerprint for one in planned], watcher.warn)
    planned = [one for one in planned if one.drawn.keys() - again[one.name]]
    looked_for = {one.name: frozenset().union(*one.annotated.values()) for one in planned}
    annotations = agree_on_structures(
        [one.fingerprint for one in planned], request.labels, looked_for
    )
    for one, annotation in zip(planned, annotations, strict=True):
        watcher.note(f"{one.name}: {annotation}")
    for odd in lesions_apart(
        {one.name: annotation for one, annotation in zip(planned, annotations, strict=True)}
    ):
        watcher.warn(odd)
    fingerprints = [one.fingerprint for one in planned]
    check_window(fingerprints, request.window)
    check_grid(fingerprints, request)
    contract = _contract(request, fingerprints)
    prepared = [
        _prepare(one, annotation, again[one.name], contract, request, store, watcher)
        for one, annotation in zip(planned, annotations, strict=True)
    ]
    classes = _classes(prepared)
    sources = [_source(one, classes, request) for one in prepared]
    for whole, source in zip(prepared, sources, strict=True):
        if left_out := len(whole.annotated) - len(source.cases):
            watcher.warn(
                f"{whole.name}: {pluralise(left_out, 'case')} left out, of which no structure is annotated"
            )
    held_out = _held_out(prepared, sources, request.validation_share)
    return TrainingDatasets(
        classes=classes,
        contract=contract,
        training=_some_of(sources, lambda case: case.name not in held_out),
        held_out=_some_of(sources, lambda case: case.name in held_out),
        key=digest(
            classes,
            [(one.name, one.contents, sorted(one.names.items())) for one in prepared],
            [
                (case.name, case.annotated, case.name in held_out)
                for source in sources
                for case in source.cases
            ],
            *([contract.model_dump(mode="json")] if request.window is None else []),
        ),
    )


def _contract(request: PretrainRequest, fingerprints: Sequence[Fingerprint]) -> Contract:
    """What the new model will expect: CT in the window that was asked for, or as is right for all datasets of CT."""
    intensity: dict[Modality, Intensity] = {
        one.modality: Intensity(scheme="zscore") for one in fingerprints if one.modality != "ct"
    }
    if ct := [stats for one in fingerprints if one.modality == "ct" for stats in one.intensities]:
        window = request.window
        intensity["ct"] = (
            Intensity(scheme="window", low=window[0], high=window[1])
            if window
            else pool_intensity_statistics(ct)
        )
    return Contract(
        spacing_mm=request.spacing_mm, intensity=intensity, patch_size=request.patch_size
    )


def _refuse_namesakes(datasets: Sequence[Dataset]) -> None:
    names = Counter(dataset.name for dataset in datasets)
    if twice := [name for name, times in names.items() if times > 1]:
        raise FseftError(
            f"{names[twice[0]]} datasets are called {twice[0]!r}", hint="Rename the folder of one."
        )


@dataclass(frozen=True)
class _StageOf(Callbacks):
    """The progress of a stage, with the name of the dataset."""

    watcher: Watcher
    dataset: str

    def progress(
        self, description: str, total: int
    ) -> AbstractContextManager[Callable[[str], None]]:
        """Begin a stage."""
        return self.watcher.progress(total, f"{description} {self.dataset}")


def _workers(request: PretrainRequest) -> Workers:
    return request.cluster or request.workers


@dataclass(frozen=True)
class _Planned:
    """A dataset that was measured; as in `_Prepared`, but by its own names."""

    dataset: Dataset
    fingerprint: Fingerprint
    plan: Plan
    drawn: dict[str, frozenset[str]]
    annotated: dict[str, frozenset[str]]

    @property
    def name(self) -> str:
        return self.fingerprint.dataset


def _plan(
    folder: Path,
    dataset: Dataset,
    rule: AbsentMeans,
    request: PretrainRequest,
    store: Workspace,
    watcher: Watcher,
) -> _Planned:
    with watcher.progress(len(dataset.cases), f"measure {dataset.name}") as done:
        fingerprint = fingerprint_dataset(dataset, store, workers=_workers(request), progress=done)
    for warning in fingerprint.warnings:
        watcher.warn(f"{dataset.name}: {warning}")
    drawn = drawn_structures(fingerprint)
    if len(fingerprint.channels) != 1 or not drawn:
        raise FseftError(
            f"has {len(fingerprint.channels)} channel(s) and {len(drawn)} labelled cases",
            file=folder,
            hint="Pre-training takes labelled datasets of one channel.",
        )
    plan = plan_for(FoundationModel(scratch_card()), fingerprint)
    annotated = annotated_structures(folder, dataset, fingerprint, rule)
    return _Planned(dataset, fingerprint, plan, drawn, annotated)


def _prepare(
    planned: _Planned,
    annotation: LabelMapping,
    again: set[str],
    contract: Contract,
    request: PretrainRequest,
    store: Workspace,
    watcher: Watcher,
) -> _Prepared:
    """Preprocess a dataset; here, and only here, its own names become those of classes."""
    fingerprint = planned.fingerprint
    intensity, _ = select_intensity_scheme(
        contract, fingerprint.modality, list(fingerprint.intensities)
    )
    own = planned.plan.preprocessing
    preprocessing = own.model_copy(
        update={
            "spacing_mm": contract.spacing_mm or own.spacing_mm,
            "intensity": intensity,
            "patch_size": request.patch_size,
        }
    )
    plan = planned.plan.model_copy(update={"preprocessing": preprocessing})
    wanted = [name for name in planned.drawn if name not in again]
    cache = preprocess(
        planned.dataset,
        plan,
        store,
        workers=_workers(request),
        cases=wanted,
        pairs=annotation.pairs,
        callbacks=_StageOf(watcher, planned.name),
    )

    def classes(names: Iterable[str]) -> frozenset[str]:
        return frozenset(meant for name in names for meant in annotation.names.get(name, ()))

    def there(case: str) -> frozenset[str]:
        """What is left in the array: of a divided pair, or on a coarse grid, not all may be."""
        values = open_case(cache.folder, case).classes
        return frozenset(
            structure for structure, value in annotation.labels.items() if value in values
        )

    return _Prepared(
        folder=planned.dataset.folder,
        name=planned.name,
        names={value: structure for structure, value in annotation.labels.items()},
        annotated={case: classes(planned.annotated[case]) for case in wanted},
        drawn={case: classes(planned.drawn[case]) & there(case) for case in wanted},
        contents={case.name: case.content for case in fingerprint.cases if case.name in wanted},
        preprocessing=preprocessing,
        cache=cache.folder,
    )


def _classes(prepared: Sequence[_Prepared]) -> tuple[str, ...]:
    """What the model will know: all that is drawn anywhere, of what was asked for.

    Raises:
        FseftError: A dataset annotates none of it in the cases that are its own.
    """
    for one in prepared:
        if not frozenset().union(*one.annotated.values()):
            cause = "annotates none of the structures in those of its cases that no dataset before it has"
            raise FseftError(cause, file=one.folder, hint="Leave it out.")
    return tuple(
        sorted(frozenset().union(*(drawn for one in prepared for drawn in one.drawn.values())))
    )


def _source(prepared: _Prepared, classes: Sequence[str], request: PretrainRequest) -> DatasetSource:
    index = {name: number for number, name in enumerate(classes, start=1)}
    everything = frozenset(classes) if request.masking == "none" else frozenset()
    how = prepared.preprocessing
    crops = CropSource(
        request.patch_size,
        how.intensity,
        how.modality,
        {value: index[name] for value, name in prepared.names.items() if name in index},
    )
    cases = (
        PartiallyLabelledCase(
            name=f"case {case} of {prepared.name}",
            cached=open_case(prepared.cache, case),
            drawn=tuple(sorted(index[name] for name in prepared.drawn[case] if name in index)),
            annotated=tuple(
                sorted(index[name] for name in annotated | everything if name in index)
            ),
        )
        for case, annotated in prepared.annotated.items()
    )
    return DatasetSource(prepared.name, crops, tuple(case for case in cases if case.annotated))


def _held_out(
    prepared: Sequence[_Prepared], sources: Sequence[DatasetSource], share: float
) -> set[str]:
    """The cases for validation: those whose content's hash is low, as long as others draw all that they do.

    So a case stays where it is when others come or go, and is no case of training in one run and of validation in
    another.
    """
    contents = {
        f"case {case} of {one.name}": key for one in prepared for case, key in one.contents.items()
    }
    left = Counter(
        (s.name, index) for s in sources for case in s.cases for index in (0, *case.drawn)
    )
    held_out = set()
    for source in sources:
        for case in source.cases:
            key, needed = contents[case.name], [(source.name, index) for index in (0, *case.drawn)]
            if int(key, 16) < share * 16 ** len(key) and all(left[one] > 1 for one in needed):
                held_out.add(case.name)
                left.subtract(needed)
    return held_out


def _some_of(
    sources: Sequence[DatasetSource], wanted: Callable[[PartiallyLabelledCase], bool]
) -> tuple[DatasetSource, ...]:
    """The sources with the wanted cases only, where there are any."""
    parts = (replace(source, cases=tuple(filter(wanted, source.cases))) for source in sources)
    return tuple(part for part in parts if part.cases)
