"""The fingerprint of a dataset, measured case by case; each file is read once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fseft.errors import FseftError, pluralise
from fseft.schemas import CaseFingerprint, ClassFingerprint, Fingerprint
from fseft.volume.annotation import annotation_warnings, drawn_slices, is_annotated
from fseft.volume.case_files import read_case, read_case_labels
from fseft.volume.geometry import bounding_box
from fseft.volume.histogram import CaseIntensities, measure_intensities, summarise
from fseft.volume.image import voxels_digest
from fseft.volume.intensity import AIR_THRESHOLD_HU, guess_modality, modality_warnings
from fseft.volume.label_values import label_boxes
from fseft.volume.masks import label_files
from fseft.volume.preprocessing import body_box
from fseft.workspace import digest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from fseft.schemas import Case, Dataset, IntensityStats, Millimetres, Triple
    from fseft.volume.geometry import Array
    from fseft.volume.image import Volume

AXES = "RAS"
"""Axes of lengths that are compared across cases: left-right, back-front, foot-head."""

FORMAT = 3  # version of the measurements; increased when they change
_NOT_MEASURED = {"annotation", "missing_label", "cases", "folder"}
_MAX_NAMES = 3  # cases or structures in a message
_WORLD_AXES = {"L": 0, "R": 0, "P": 1, "A": 1, "I": 2, "S": 2}


@dataclass(frozen=True, eq=False)
class CaseMeasurement:
    """Measurements of one case; axes as stored in the file.

    Attributes:
        name: Case identifier.
        voxels: Key of the image's voxels, see `voxels_digest`.
        labelled: Whether the case has a label.
        shape: Voxels along each axis.
        shape_after_crop: Voxels along each axis of the box of the body.
        spacing_mm: Spacing along each axis.
        orientation: Three-letter code of the axes.
        integer: Whether the file contains integers.
        minimum: Smallest value of the image.
        volumes_mm3: Label value -> volume.
        extents_mm: Label value -> sides of the bounding box.
        intensities: Intensities of each channel in the foreground; in the body for a dataset
            without any label.
        doubts: Signs that the file is not an image.
        annotated: Fraction of the voxels that count as annotated.
        slices: Drawn slices, and all, of a case that is drawn in single slices.
    """

    name: str
    voxels: str
    labelled: bool
    shape: Triple
    shape_after_crop: Triple
    spacing_mm: Millimetres
    orientation: str
    integer: bool
    minimum: float
    volumes_mm3: Mapping[int, float]
    extents_mm: Mapping[int, Millimetres]
    intensities: tuple[CaseIntensities, ...]
    doubts: tuple[str, ...] = ()
    annotated: float = 1.0
    slices: tuple[int, int] | None = None


def dataset_content(dataset: Dataset, contents: Mapping[str, str]) -> str:
    """Returns a key of everything that the fingerprint depends on.

    Args:
        dataset: The dataset, as read.
        contents: Case name -> key of its files.
    """
    declared = dataset.model_dump(mode="json", exclude=_NOT_MEASURED)
    return digest(FORMAT, declared, dict(contents))


def measure_case(
    case: Case,
    *,
    channels: Sequence[str],
    labels: Mapping[str, int],
    body: bool,
    regions: Mapping[str, tuple[int, ...]] | None = None,
) -> CaseMeasurement:
    """Reads and measures one case; to be mapped over the cases of a dataset.

    Args:
        case: Case to read.
        channels: Names of the channels of the dataset.
        labels: Structure name -> value; empty if the names are unknown.
        body: Measure the intensities in the body instead of the foreground.
        regions: Structure -> voxel values that belong to it, if structures overlap.

    Raises:
        FseftError: A file is broken, or the label is on another grid or contains an undeclared
            value.
    """
    volume = read_case(case, channels)
    array, geometry = volume.array, volume.geometry
    minimum = float(array.min())
    box = body_box(array, guess_modality(channels, minimum))
    marked = None if case.label is None else read_case_labels(case, volume).array[0]
    label = None if marked is None else marked * is_annotated(marked)
    volumes, extents = _measure_labels(case, label, volume, labels, regions or {})
    return CaseMeasurement(
        name=case.name,
        voxels=voxels_digest(volume),
        labelled=label is not None,
        shape=geometry.shape,
        shape_after_crop=box.shape,
        spacing_mm=geometry.spacing_mm,
        orientation=geometry.orientation,
        integer=array.dtype.kind in "iu",
        minimum=minimum,
        volumes_mm3=volumes,
        extents_mm=extents,
        intensities=_intensities(array, label, box.slices, body),
        doubts=tuple(modality_warnings(array, "other")),
        annotated=_annotated_fraction(marked),
        slices=_slices(label),
    )


def combine_measurements(
    dataset: Dataset, measurements: Sequence[CaseMeasurement], contents: Mapping[str, str]
) -> Fingerprint:
    """Combines the measurements of all cases into the fingerprint.

    Args:
        dataset: The measured dataset.
        measurements: One per case.
        contents: Case name -> key of its files.

    Raises:
        FseftError: The dataset has labels, but no case has a labelled voxel.
    """
    labels = dataset.labels or _generic_labels(measurements)
    names = {value: name for name, value in labels.items()}
    minimum = float(np.median([case.minimum for case in measurements]))
    modality = guess_modality(dataset.channels, minimum)
    classes = {name: _class_fingerprint(value, measurements) for name, value in labels.items()}
    warnings = [*dataset.warnings, *_warn_absent(classes), *_warn_doubtful(measurements)]
    warnings += annotation_warnings(measurements)
    if modality == "ct":
        warnings += _warn_offset(measurements)
    return Fingerprint(
        dataset=dataset.name,
        reader=dataset.reader,
        content=dataset_content(dataset, contents),
        channels=dataset.channels,
        modality=modality,
        integer=all(case.integer for case in measurements),
        labels=labels,
        meanings=dataset.meanings,
        cases=tuple(_case_fingerprint(case, names, contents[case.name]) for case in measurements),
        classes=classes,
        intensities=_summarise_channels(dataset, measurements),
        warnings=tuple(warnings),
    )


def foreground_statistics(dataset: Dataset, names: Collection[str]) -> tuple[IntensityStats, ...]:
    """Measures the foreground intensities of some labelled cases.

    Args:
        dataset: Dataset of the cases.
        names: Names of the cases.

    Returns:
        Statistics of each channel.

    Raises:
        FseftError: A file is broken, or no case has a labelled voxel.
    """
    measurements = [
        measure_case(
            case,
            channels=dataset.channels,
            labels=dataset.labels,
            body=False,
            regions=dataset.regions,
        )
        for case in dataset.cases
        if case.name in names
    ]
    return _summarise_channels(dataset, measurements)


def permute_to_orientation(values: Sequence[float], source: str, target: str = AXES) -> Millimetres:
    """Reorders lengths along the axes of one orientation to the axes of another.

    Args:
        values: One length per axis, without a sign.
        source: Three-letter code of the axes of `values`.
        target: Three-letter code of the axes of the result.

    Examples:
        >>> permute_to_orientation((5.0, 0.7, 0.8), "SPL", "RAS")
        (0.8, 0.7, 5.0)
    """
    by_world_axis = {}
    for letter, value in zip(source, values, strict=True):
        by_world_axis[_WORLD_AXES[letter]] = value
    i, j, k = (by_world_axis[_WORLD_AXES[letter]] for letter in target)
    return i, j, k


def _measure_structures(
    label: Array, volume: Volume
) -> tuple[dict[int, float], dict[int, Millimetres]]:
    """Returns volume (mm³) and sides of the bounding box (mm) of each label value that occurs."""
    geometry = volume.geometry
    foreground = label[bounding_box(label).slices]
    volumes: dict[int, float] = {}
    extents: dict[int, Millimetres] = {}
    for value, box in label_boxes(foreground).items():
        sides = [part.stop - part.start for part in box]
        i, j, k = np.multiply(sides, geometry.spacing_mm).tolist()
        extents[value] = i, j, k
        count = np.count_nonzero(foreground[box] == value)
        volumes[value] = float(count * geometry.voxel_volume_mm3)
    return volumes, extents


def _measure_labels(
    case: Case,
    label: Array | None,
    volume: Volume,
    labels: Mapping[str, int],
    regions: Mapping[str, tuple[int, ...]],
) -> tuple[dict[int, float], dict[int, Millimetres]]:
    """Measures each structure, by the value that it is written with."""
    if label is None:
        return {}, {}
    volumes, extents = _measure_structures(label, volume)
    if not regions:
        _check_values(case, volumes, labels.values())
        return volumes, extents
    _check_values(case, volumes, set().union(*regions.values()))
    region_volumes, region_extents = {}, {}
    for name, values in regions.items():
        part = np.isin(label, values).astype(np.uint8)
        found_volumes, found_extents = _measure_structures(part, volume)
        if found_volumes:
            region_volumes[labels[name]] = found_volumes[1]
            region_extents[labels[name]] = found_extents[1]
    return region_volumes, region_extents


def _annotated_fraction(marked: Array | None) -> float:
    return 1.0 if marked is None else float(is_annotated(marked).mean())


def _slices(label: Array | None) -> tuple[int, int] | None:
    found = None if label is None else drawn_slices(label > 0)
    if found is None:
        return None
    _, slices = found
    return int(np.count_nonzero(slices)), len(slices)


def _check_values(case: Case, values: Iterable[int], declared: Iterable[int]) -> None:
    """Refuses values that the dataset does not declare."""
    unknown = sorted(set(values) - set(declared))
    if not set(declared) or not unknown:
        return
    subject = "label values" if len(unknown) > 1 else "label value"
    raise FseftError(
        f"contains {subject} {_first(map(str, unknown))} without a name",
        case=case.name,
        file=label_files(case)[0],
        hint="Name it in dataset.json, or correct the label.",
    )


def _intensities(
    array: Array, label: Array | None, box: tuple[slice, ...], body: bool
) -> tuple[CaseIntensities, ...]:
    """Measures each channel in the body box or in the foreground."""
    if body:
        crops = [np.ascontiguousarray(channel[box]) for channel in array]
        return tuple(measure_intensities(crop.reshape(-1)) for crop in crops)
    if label is None:
        return ()
    part = bounding_box(label).slices
    foreground = label[part] > 0
    return tuple(measure_intensities(channel[part][foreground]) for channel in array)


def _generic_labels(measurements: Iterable[CaseMeasurement]) -> dict[str, int]:
    """Returns names for the structures of a dataset that declares none."""
    values = {value for case in measurements for value in case.volumes_mm3}
    return {f"class_{value}": value for value in sorted(values)}


def _class_fingerprint(value: int, measurements: Iterable[CaseMeasurement]) -> ClassFingerprint:
    cases = [case for case in measurements if value in case.volumes_mm3]
    if not cases:
        return ClassFingerprint(id=value, cases=0)
    volumes = [case.volumes_mm3[value] for case in cases]
    extents = [permute_to_orientation(case.extents_mm[value], case.orientation) for case in cases]
    i, j, k = np.max(extents, axis=0).tolist()
    return ClassFingerprint(
        id=value,
        cases=len(cases),
        median_volume_mm3=float(np.median(volumes)),
        maximum_extent_mm=(i, j, k),
    )


def _case_fingerprint(
    case: CaseMeasurement, names: Mapping[int, str], content: str
) -> CaseFingerprint:
    return CaseFingerprint(
        name=case.name,
        content=content,
        voxels=case.voxels,
        labelled=case.labelled,
        annotated=case.annotated,
        slices=case.slices,
        shape=case.shape,
        shape_after_crop=case.shape_after_crop,
        spacing_mm=case.spacing_mm,
        orientation=case.orientation,
        volumes_mm3={names[value]: volume for value, volume in case.volumes_mm3.items()},
        extents_mm={names[value]: extent for value, extent in case.extents_mm.items()},
    )


def _summarise_channels(
    dataset: Dataset, measurements: Sequence[CaseMeasurement]
) -> tuple[IntensityStats, ...]:
    cases = [case.intensities for case in measurements if case.intensities]
    statistics = []
    for channel in range(len(dataset.channels)):
        summary = summarise([intensities[channel] for intensities in cases])
        if summary is None:
            cause = f"no case of {dataset.name} has a labelled voxel"
            raise FseftError(cause, hint="Check the label files.")
        statistics.append(summary)
    return tuple(statistics)


def _warn_absent(classes: Mapping[str, ClassFingerprint]) -> list[str]:
    absent = [name for name, structure in classes.items() if structure.cases == 0]
    if not absent:
        return []
    subject = pluralise(len(absent), "declared structure")
    return [f"{subject} absent from all cases ({', '.join(absent)}): cannot be learned"]


def _warn_doubtful(measurements: Sequence[CaseMeasurement]) -> list[str]:
    doubtful = [case for case in measurements if case.doubts]
    if not doubtful:
        return []
    first, others = doubtful[0], len(doubtful) - 1
    more = f" and {pluralise(others, 'case')} more" if others else ""
    return [f"the image of {first.name}{more}: {first.doubts[0]}; is it in the right folder?"]


def _warn_offset(measurements: Sequence[CaseMeasurement]) -> list[str]:
    """Warns of CT without air: most often an offset of 1024 was lost."""
    without_air = [case.name for case in measurements if case.minimum > AIR_THRESHOLD_HU]
    if not without_air:
        return []
    count = f"{len(without_air)} of {len(measurements)} CT cases"
    warning = (
        f"{count} have no value below {AIR_THRESHOLD_HU} HU ({_first(without_air)}): if they show "
        "air, subtract 1024 from their values"
    )
    return [warning]


def _first(names: Iterable[str]) -> str:
    names = list(names)
    more = ", ..." if len(names) > _MAX_NAMES else ""
    return ", ".join(names[:_MAX_NAMES]) + more
