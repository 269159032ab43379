"""The fingerprint: what a dataset is like, measured case by case, each file read once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fseft.errors import FseftError, pluralise
from fseft.schemas import CaseFingerprint, ClassFingerprint, Fingerprint
from fseft.volume.geometry import bounding_box, geometry_mismatch, reorient
from fseft.volume.histogram import CaseIntensities, measure_intensities, summarise
from fseft.volume.image import Volume, content_digest, read_labels, read_volume, voxels_digest
from fseft.volume.intensity import AIR_THRESHOLD_HU, guess_modality, modality_warnings
from fseft.volume.masks import label_files, read_masks
from fseft.volume.png_slices import is_png_folder, read_png_labels
from fseft.volume.preprocessing import body_box
from fseft.workspace import digest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from fseft.schemas import Case, Dataset, IntensityStats, Millimetres, Triple
    from fseft.volume.geometry import Array

AXES = "RAS"
"""Axes of what is compared across cases, whatever their orientation: left-right, back-front, foot-head."""

FORMAT = 3  # raised when other things are measured
_NAMED = 3  # cases or structures that a warning names


@dataclass(frozen=True, eq=False)
class CaseMeasurement:
    """One case; axes as stored in the file.

    Attributes:
        volumes_mm3: Label value -> volume.
        extents_mm: Label value -> sides of the bounding box.
        intensities: Per channel, of the foreground; of the body where the dataset has no label at all.
        doubts: What speaks against its being an image.
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


def case_content(case: Case) -> str:
    """A key of what the files of a case hold."""
    values = list(case.label) if isinstance(case.label, dict) else []
    return digest(len(case.images), content_digest([*case.images, *label_files(case)]), *values)


def dataset_content(dataset: Dataset, contents: Mapping[str, str]) -> str:
    """A key of everything that the fingerprint depends on; `contents` has the key of each case."""
    declared = dataset.model_dump(mode="json", exclude={"cases", "folder"})
    return digest(FORMAT, declared, dict(contents))


def measure_case(
    case: Case, *, channels: Sequence[str], labels: Mapping[str, int], body: bool
) -> CaseMeasurement:
    """Read a case and measure it; to be mapped over cases.

    Args:
        case: What to read.
        channels: Names of the channels; there must be as many.
        labels: Structure name -> value; empty where the names are not known.
        body: Take intensities from the body instead of the foreground: for datasets without labels.

    Raises:
        FseftError: A file is broken, the label is not on the image's grid, or holds a value without a name.
    """
    volume = read_case(case, channels)
    modality = guess_modality(channels, float(volume.array.min()))
    box = body_box(volume.array, modality)
    label = None if case.label is None else read_case_labels(case, volume).array[0]
    volumes, extents = ({}, {}) if label is None else _structures(label, volume)
    _check_values(case, volumes, labels)
    return CaseMeasurement(
        name=case.name,
        voxels=voxels_digest(volume),
        labelled=label is not None,
        shape=volume.geometry.shape,
        shape_after_crop=box.shape,
        spacing_mm=volume.geometry.spacing_mm,
        orientation=volume.geometry.orientation,
        integer=volume.array.dtype.kind in "iu",
        minimum=float(volume.array.min()),
        volumes_mm3=volumes,
        extents_mm=extents,
        intensities=_intensities(volume.array, label, box.slices, body),
        doubts=tuple(modality_warnings(volume.array, "other")),
    )


def read_case(case: Case, channels: Sequence[str]) -> Volume:
    """The image of a case with all its channels."""
    source = case.images[0] if len(case.images) == 1 else case.images
    return read_volume(source, channels=len(channels), case=case.name)


def read_case_labels(case: Case, volume: Volume) -> Volume:
    """The labels of a case, voxel by voxel on the grid of its image.

    Labels that are stored with other axes, as converters from DICOM leave them, are turned without loss.

    Raises:
        FseftError: There are none, they are broken, or on another grid.
    """
    if case.label is None:
        raise FseftError("has no label", case=case.name, hint="Give it one, or leave it out.")
    if isinstance(case.label, dict):
        labels = read_masks(case.label, case=case.name)
    elif is_png_folder(case.label):
        labels = read_png_labels(case, case.label, volume)
    else:
        labels = read_labels(case.label, case=case.name)
    array, geometry = reorient(labels.array, labels.geometry, volume.geometry.orientation)
    if difference := geometry_mismatch(volume.geometry, geometry):
        raise FseftError(
            f"the image {case.images[0].name} and its label are not on the same grid: {difference}",
            case=case.name,
            file=label_files(case)[0],
            hint="Draw or resample the label on the image's grid, or repair the header that is wrong.",
        )
    return Volume(array, volume.geometry)


def combine_measurements(
    dataset: Dataset, measurements: Sequence[CaseMeasurement], contents: Mapping[str, str]
) -> Fingerprint:
    """Join the cases into the fingerprint.

    Args:
        dataset: What was measured.
        measurements: One per case.
        contents: Case name -> key of its files.

    Raises:
        FseftError: No case has a labelled voxel, though there are labels.
    """
    labels = dataset.labels or _found_labels(measurements)
    names = {value: name for name, value in labels.items()}
    modality = guess_modality(
        dataset.channels, float(np.median([case.minimum for case in measurements]))
    )
    classes = {name: _class(value, measurements) for name, value in labels.items()}
    warnings = [*dataset.warnings, *_absent(classes), *_doubtful(measurements)]
    if modality == "ct":
        warnings += _offset(measurements)
    return Fingerprint(
        dataset=dataset.name,
        reader=dataset.reader,
        content=dataset_content(dataset, contents),
        channels=dataset.channels,
        modality=modality,
        integer=all(case.integer for case in measurements),
        labels=labels,
        meanings=dataset.meanings,
        cases=tuple(_case(case, names, contents[case.name]) for case in measurements),
        classes=classes,
        intensities=_statistics(dataset, measurements),
        warnings=tuple(warnings),
    )


def foreground_statistics(dataset: Dataset, names: Collection[str]) -> tuple[IntensityStats, ...]:
    """Foreground intensities of some labelled cases only, one per channel.

    Raises:
        FseftError: A file is broken, or no case has a labelled voxel.
    """
    measurements = [
        measure_case(case, channels=dataset.channels, labels=dataset.labels, body=False)
        for case in dataset.cases
        if case.name in names
    ]
    return _statistics(dataset, measurements)


def permute_to_orientation(values: Sequence[float], source: str, target: str = AXES) -> Millimetres:
    """Lengths along the axes of one orientation, in the order of the axes of another.

    Args:
        values: One per axis, without a sign.
        source: Three-letter code of the axes of `values`.
        target: Three-letter code of the axes wanted.
    """
    pairs = {"L": 0, "R": 0, "P": 1, "A": 1, "I": 2, "S": 2}
    by_pair = {pairs[letter]: value for letter, value in zip(source, values, strict=True)}
    i, j, k = (by_pair[pairs[letter]] for letter in target)
    return i, j, k


def _structures(label: Array, volume: Volume) -> tuple[dict[int, float], dict[int, Millimetres]]:
    """Volume and sides of the bounding box of each label value that occurs."""
    from scipy.ndimage import find_objects

    body = bounding_box(label).slices
    inside, spacing = label[body], volume.geometry.spacing_mm
    counts = np.bincount(inside.ravel())
    volumes, extents = {}, {}
    for value, box in enumerate(find_objects(inside), start=1):
        if box is not None:
            i, j, k = (
                float((part.stop - part.start) * mm) for part, mm in zip(box, spacing, strict=True)
            )
            volumes[value], extents[value] = (
                float(counts[value] * volume.geometry.voxel_volume_mm3),
                (i, j, k),
            )
    return volumes, extents


def _check_values(case: Case, found: Iterable[int], labels: Mapping[str, int]) -> None:
    unknown = sorted(set(found) - set(labels.values()))
    if labels and unknown:
        values = ", ".join(map(str, unknown[:_NAMED])) + (", ..." if len(unknown) > _NAMED else "")
        raise FseftError(
            f"holds label value{'s' if len(unknown) > 1 else ''} {values} without a name",
            case=case.name,
            file=label_files(case)[0],
            hint="Name it in dataset.json, or correct the label.",
        )


def _intensities(
    array: Array, label: Array | None, box: tuple[slice, ...], body: bool
) -> tuple[CaseIntensities, ...]:
    if body:
        return tuple(
            measure_intensities(np.ascontiguousarray(channel[box]).reshape(-1)) for channel in array
        )
    if label is None:
        return ()
    part = bounding_box(label).slices
    foreground = label[part] > 0
    return tuple(measure_intensities(channel[part][foreground]) for channel in array)


def _found_labels(measurements: Iterable[CaseMeasurement]) -> dict[str, int]:
    """Names for structures that no one named."""
    values = sorted({value for case in measurements for value in case.volumes_mm3})
    return {f"class_{value}": value for value in values}


def _class(value: int, measurements: Iterable[CaseMeasurement]) -> ClassFingerprint:
    having = [case for case in measurements if value in case.volumes_mm3]
    if not having:
        return ClassFingerprint(id=value, cases=0)
    volumes = [case.volumes_mm3[value] for case in having]
    extents = np.array(
        [permute_to_orientation(case.extents_mm[value], case.orientation) for case in having]
    )
    i, j, k = extents.max(axis=0).tolist()
    return ClassFingerprint(
        id=value,
        cases=len(having),
        median_volume_mm3=float(np.median(volumes)),
        maximum_extent_mm=(i, j, k),
    )


def _case(case: CaseMeasurement, names: Mapping[int, str], content: str) -> CaseFingerprint:
    return CaseFingerprint(
        name=case.name,
        content=content,
        voxels=case.voxels,
        labelled=case.labelled,
        shape=case.shape,
        shape_after_crop=case.shape_after_crop,
        spacing_mm=case.spacing_mm,
        orientation=case.orientation,
        volumes_mm3={names[value]: volume for value, volume in case.volumes_mm3.items()},
        extents_mm={names[value]: extent for value, extent in case.extents_mm.items()},
    )


def _statistics(
    dataset: Dataset, measurements: Sequence[CaseMeasurement]
) -> tuple[IntensityStats, ...]:
    having = [case for case in measurements if case.intensities]
    found = []
    for channel in range(len(dataset.channels)):
        stats = summarise([case.intensities[channel] for case in having])
        if stats is None:
            raise FseftError(
                f"no case of {dataset.name} has a labelled voxel", hint="Check the label files."
            )
        found.append(stats)
    return tuple(found)


def _absent(classes: Mapping[str, ClassFingerprint]) -> list[str]:
    absent = [name for name, found in classes.items() if found.cases == 0]
    if not absent:
        return []
    what = "structure is" if len(absent) == 1 else "structures are"
    return [
        f"{len(absent)} {what} declared but in no case ({', '.join(absent)}): nothing can be learnt of it"
    ]


def _doubtful(measurements: Sequence[CaseMeasurement]) -> list[str]:
    doubtful = [case for case in measurements if case.doubts]
    if not doubtful:
        return []
    more = f" and {pluralise(len(doubtful) - 1, 'case')} more" if len(doubtful) > 1 else ""
    return [
        f"the image of {doubtful[0].name}{more}: {doubtful[0].doubts[0]}; is it in the right folder?"
    ]


def _offset(measurements: Sequence[CaseMeasurement]) -> list[str]:
    """CT without anything below -500 HU holds no air: most often an offset of 1024 was lost."""
    high = [case.name for case in measurements if case.minimum > AIR_THRESHOLD_HU]
    if not high:
        return []
    some = ", ".join(high[:_NAMED]) + (", ..." if len(high) > _NAMED else "")
    found = f"{len(high)} of {len(measurements)} CT cases have no value below {AIR_THRESHOLD_HU} HU ({some})"
    return [f"{found}: if they show air, subtract 1024 from their values"]
