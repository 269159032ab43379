"""The assembly of datasets that a model is pre-trained on: each prepared, none twice, some cases held out."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fseft.documents import Contract, Intensity
from fseft.errors import FseftError, did_you_mean
from fseft.learn.patches import CropSource
from fseft.learn.pool import PooledCase, Source
from fseft.learn.vocabulary import canonical
from fseft.steps.annotations import absent_means, annotated_structures
from fseft.steps.datasets import read_dataset
from fseft.steps.plan import make_plan
from fseft.steps.preprocess import preprocess
from fseft.store import digest
from fseft.volume.cache import open_case
from fseft.volume.image import content_digest
from fseft.volume.intensity import choose_intensity

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from pathlib import Path

    from fseft.documents import Dataset, Fingerprint, Modality, Preprocessing
    from fseft.steps.annotations import AbsentMeans
    from fseft.steps.pretrain_request import PretrainRequest
    from fseft.store import Store


@dataclass(frozen=True)
class Assembly:
    """What there is to learn from.

    Attributes:
        classes: What the model will know, in the order of its outputs.
        training: The datasets, without what is held out.
        held_out: The same datasets, of which only the cases for validation.
        modalities: That occur.
        key: Of the content of all cases and of what is annotated in them.
    """

    classes: tuple[str, ...]
    training: tuple[Source, ...]
    held_out: tuple[Source, ...]
    modalities: tuple[Modality, ...]
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


def assemble(request: PretrainRequest, store: Store, warn: Callable[[str], None]) -> Assembly:
    """Plan and preprocess every dataset under the new model's contract, and decide which cases are held out.

    Raises:
        FseftError: A dataset is broken, or annotates none of the classes.
    """
    datasets = [read_dataset(folder) for folder in request.folders]
    rules = absent_means(request.absent_means, [dataset.name for dataset in datasets])
    again = _again(datasets, warn)
    prepared = [
        _prepare(folder, dataset, rules[dataset.name], again[dataset.name], request, store)
        for folder, dataset in zip(request.folders, datasets, strict=True)
    ]
    classes = _classes(prepared, request.labels)
    sources = [_source(one, classes, request) for one in prepared]
    held_out = _held_out(prepared, sources, request.validation_share)
    return Assembly(
        classes=classes,
        training=_some_of(sources, lambda case: case.name not in held_out),
        held_out=_some_of(sources, lambda case: case.name in held_out),
        modalities=tuple(sorted({one.preprocessing.modality for one in prepared})),
        key=digest(
            classes,
            [(one.name, one.contents, sorted(one.names.items())) for one in prepared],
            [(case.name, case.annotated, case.name in held_out) for source in sources for case in source.cases],
        ),
    )


def contract_of(request: PretrainRequest, modalities: Collection[Modality]) -> Contract:
    """What the new model expects; for CT without a window each dataset's own clipping goes on to decide."""
    intensity: dict[Modality, Intensity] = {one: Intensity(scheme="zscore") for one in modalities if one != "ct"}
    if request.window is not None and "ct" in modalities:
        intensity["ct"] = Intensity(scheme="window", low=request.window[0], high=request.window[1])
    return Contract(spacing_mm=request.spacing_mm, intensity=intensity, patch_size=request.patch_size)


def _again(datasets: Sequence[Dataset], warn: Callable[[str], None]) -> dict[str, set[str]]:
    """Dataset -> its cases whose images were met before; only files of one size are read to be compared."""
    alike: dict[tuple[int, ...], list[tuple[str, str, tuple[Path, ...]]]] = defaultdict(list)
    names = Counter(dataset.name for dataset in datasets)
    if twice := [name for name, times in names.items() if times > 1]:
        raise FseftError(f"{names[twice[0]]} datasets are called {twice[0]!r}", hint="Rename the folder of one.")
    for dataset in datasets:
        for case in dataset.labelled:
            sizes = tuple(path.stat().st_size for path in case.images)
            alike[sizes].append((dataset.name, case.name, case.images))
    again: dict[str, set[str]] = {dataset.name: set() for dataset in datasets}
    for cases in (cases for cases in alike.values() if len(cases) > 1):
        met: dict[str, tuple[str, str]] = {}
        for dataset_name, case_name, images in cases:
            first = met.setdefault(content_digest(images), (dataset_name, case_name))
            if first != (dataset_name, case_name):
                again[dataset_name].add(case_name)
                same = f"case {case_name} of {dataset_name} is the same volume as {first[1]} of {first[0]}"
                warn(f"{same}: counted once, with the labels of {first[0]}")
    return again


def _prepare(
    folder: Path, dataset: Dataset, rule: AbsentMeans, again: set[str], request: PretrainRequest, store: Store
) -> _Prepared:
    """Plan and preprocess a dataset; here, and only here, its own names become those of classes."""
    fingerprint, plan = make_plan(folder, "none", store, workers=request.workers)
    drawn = {case.name: frozenset(case.volumes_mm3) for case in fingerprint.cases if case.volumes_mm3}
    if len(fingerprint.channels) != 1 or not drawn:
        raise FseftError(
            f"has {len(fingerprint.channels)} channel(s) and {len(drawn)} labelled cases",
            file=folder,
            hint="Pre-training takes labelled datasets of one channel.",
        )
    annotated = annotated_structures(folder, fingerprint, rule)
    preprocessing = _preprocessing(fingerprint, plan.preprocessing, request)
    plan = plan.model_copy(update={"preprocessing": preprocessing})
    wanted = [name for name in drawn if name not in again]
    cache = preprocess(folder, plan, store, workers=request.workers, cases=wanted)
    classes = {name: canonical(name) for name in fingerprint.labels}
    return _Prepared(
        folder=folder,
        name=dataset.name,
        names={value: classes[name] for name, value in fingerprint.labels.items()},
        annotated={case: frozenset(classes[name] for name in annotated[case]) for case in wanted},
        drawn={case: frozenset(classes[name] for name in drawn[case]) for case in wanted},
        contents={case.name: case.content for case in fingerprint.cases if case.name in wanted},
        preprocessing=preprocessing,
        cache=cache.folder,
    )


def _preprocessing(fingerprint: Fingerprint, planned: Preprocessing, request: PretrainRequest) -> Preprocessing:
    contract = contract_of(request, [fingerprint.modality])
    intensity, _ = choose_intensity(contract, fingerprint.modality, list(fingerprint.intensities))
    return planned.model_copy(
        update={
            "spacing_mm": contract.spacing_mm or planned.spacing_mm,
            "intensity": intensity,
            "patch_size": request.patch_size,
        }
    )


def _classes(prepared: Sequence[_Prepared], labels: Iterable[str]) -> tuple[str, ...]:
    """What the model will know: all that is drawn anywhere, or what was asked for of it.

    Raises:
        FseftError: A label is drawn nowhere, or a dataset annotates none of them.
    """
    known = sorted(frozenset().union(*(drawn for one in prepared for drawn in one.drawn.values())))
    classes = tuple(dict.fromkeys(canonical(label) for label in labels)) or tuple(known)
    if unknown := [name for name in classes if name not in known]:
        raise FseftError(f"--labels {unknown[0]}: drawn in no case", hint=did_you_mean(unknown[0], known))
    for one in prepared:
        own = sorted(frozenset().union(*one.annotated.values()))
        if not set(own) & set(classes):
            whose = f"its structures are {', '.join(own)}" if own else "all its cases are in other datasets too"
            raise FseftError(
                f"annotates none of the classes ({whose})", file=one.folder, hint="Leave it out, or add to --labels."
            )
    return classes


def _source(prepared: _Prepared, classes: Sequence[str], request: PretrainRequest) -> Source:
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
        PooledCase(
            name=f"case {case} of {prepared.name}",
            cached=open_case(prepared.cache, case),
            drawn=tuple(sorted(index[name] for name in prepared.drawn[case] if name in index)),
            annotated=tuple(sorted(index[name] for name in annotated | everything if name in index)),
        )
        for case, annotated in prepared.annotated.items()
    )
    return Source(prepared.name, crops, tuple(case for case in cases if case.annotated))


def _held_out(prepared: Sequence[_Prepared], sources: Sequence[Source], share: float) -> set[str]:
    """The cases for validation: those whose content's hash is low, as long as others draw all that they do.

    So a case stays where it is when others come or go, and is no case of training in one run and of validation in
    another.
    """
    contents = {f"case {case} of {one.name}": key for one in prepared for case, key in one.contents.items()}
    left = Counter((s.name, index) for s in sources for case in s.cases for index in (0, *case.drawn))
    held_out = set()
    for source in sources:
        for case in source.cases:
            key, needed = contents[case.name], [(source.name, index) for index in (0, *case.drawn)]
            if int(key, 16) < share * 16 ** len(key) and all(left[one] > 1 for one in needed):
                held_out.add(case.name)
                left.subtract(needed)
    return held_out


def _some_of(sources: Sequence[Source], wanted: Callable[[PooledCase], bool]) -> tuple[Source, ...]:
    """The sources with the wanted cases only, where there are any."""
    parts = (replace(source, cases=tuple(filter(wanted, source.cases))) for source in sources)
    return tuple(part for part in parts if part.cases)
