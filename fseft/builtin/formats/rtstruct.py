"""The format `rtstruct`: contours of the structures in every slice, for radiotherapy planning.

A contour runs halfway between the centres of pixels inside and outside, so that a reader that fills
it by pixel centres gets the voxels back. A hole is joined to its contour by a channel of no width
(keyhole), as the type CLOSED_PLANAR has no holes.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import numpy as np

from fseft.anatomy.terminology import structure_colours, term_of
from fseft.builtin.formats.shared import dicom_source
from fseft.plugin import FormatSpec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fseft.anatomy.terminology import Code
    from fseft.volume.geometry import Array
    from fseft.volume.segmentation import Segmentation

SPEC = FormatSpec(
    name="rtstruct",
    factory="fseft.builtin.formats.rtstruct:write",
    summary="a DICOM structure set (RTSTRUCT): contours per slice, for radiotherapy",
    suffix=".rtstruct.dcm",
    needs_series=True,
    packages=("pydicom", "skimage"),
    extra="fseft[dicom]",
)
_SOP_CLASS = "1.2.840.10008.5.1.4.1.1.481.3"
_STRAIGHT = 1e-6  # product of two edges on a line, in pixels
_STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"  # retired, and required by readers
_OF_PATIENT = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex")
_OF_STUDY = (
    *("StudyInstanceUID", "StudyID", "StudyDate", "StudyTime", "AccessionNumber"),
    "ReferringPhysicianName",
)


def write(segmentation: Segmentation, path: Path) -> None:
    """Writes a structure set; a structure without a voxel is a region without contours.

    Args:
        segmentation: A segmentation of a DICOM series.
        path: File to write.

    Raises:
        FseftError: The series has changed or is gone.
    """
    slices = dicom_source.source_slices(segmentation)
    names = list(segmentation.structures)
    private = [name for name in names if term_of(name).kind.is_private]
    dicom_source.warn_private(private)
    dataset = _structure_set(segmentation, slices)
    dataset.ReferencedFrameOfReferenceSequence = [_reference(slices)]
    dataset.StructureSetROISequence = []
    dataset.ROIContourSequence = []
    dataset.RTROIObservationsSequence = []
    colours = structure_colours(names)
    for number, name in enumerate(names, start=1):
        dataset.StructureSetROISequence.append(_region(number, name, slices[0]))
        contours = list(_contours(segmentation, name, slices))
        dataset.ROIContourSequence.append(
            _item(
                ROIDisplayColor=list(colours[name]),
                ReferencedROINumber=number,
                **({"ContourSequence": contours} if contours else {}),
            )
        )
        dataset.RTROIObservationsSequence.append(_observation(number, name))
    dataset.save_as(path, enforce_file_format=True)


def _structure_set(segmentation: Segmentation, slices: list[Any]) -> Any:
    """Returns the data set without regions."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    now = datetime.now(timezone.utc)
    dataset = _item(
        SpecificCharacterSet=dicom_source.UTF8,
        SOPClassUID=_SOP_CLASS,
        SOPInstanceUID=generate_uid(),
        Modality="RTSTRUCT",
        Manufacturer=dicom_source.MANUFACTURER,
        ManufacturerModelName=dicom_source.MODEL,
        SoftwareVersions=segmentation.version,
        SeriesInstanceUID=generate_uid(),
        SeriesNumber=dicom_source.SERIES_NUMBERS["RTSTRUCT"],
        SeriesDescription=dicom_source.label_text(f"fseft: {segmentation.algorithm}"),
        OperatorsName="",
        InstanceNumber=1,
        FrameOfReferenceUID=slices[0].FrameOfReferenceUID,
        PositionReferenceIndicator="",
        StructureSetLabel="fseft",
        StructureSetDate=now.strftime("%Y%m%d"),
        StructureSetTime=now.strftime("%H%M%S"),
        ApprovalStatus="UNAPPROVED",
        **{name: getattr(slices[0], name) for name in (*_OF_PATIENT, *_OF_STUDY)},
    )
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def _reference(slices: list[Any]) -> Any:
    """Returns the frame of reference, with the study, the series and its images."""
    first = slices[0]
    series = _item(
        SeriesInstanceUID=first.SeriesInstanceUID,
        ContourImageSequence=[_image(item) for item in slices],
    )
    study = _item(
        ReferencedSOPClassUID=_STUDY_CLASS,
        ReferencedSOPInstanceUID=first.StudyInstanceUID,
        RTReferencedSeriesSequence=[series],
    )
    return _item(FrameOfReferenceUID=first.FrameOfReferenceUID, RTReferencedStudySequence=[study])


def _image(source: Any) -> Any:
    return _item(
        ReferencedSOPClassUID=source.SOPClassUID, ReferencedSOPInstanceUID=source.SOPInstanceUID
    )


def _region(number: int, name: str, source: Any) -> Any:
    return _item(
        ROINumber=number,
        ReferencedFrameOfReferenceUID=source.FrameOfReferenceUID,
        ROIName=dicom_source.label_text(name),
        ROIGenerationAlgorithm="AUTOMATIC",
    )


def _observation(number: int, name: str) -> Any:
    term = term_of(name)
    kind = _coded(term.kind)
    if term.side:
        kind.SegmentedPropertyTypeModifierCodeSequence = [_coded(term.side)]
    return _item(
        ObservationNumber=number,
        ReferencedROINumber=number,
        RTROIInterpretedType="" if term.region else "ORGAN",
        ROIInterpreter="",
        RTROIIdentificationCodeSequence=[kind],
    )


def _contours(segmentation: Segmentation, name: str, slices: list[Any]) -> Iterator[Any]:
    """Yields the contours of a structure, slice by slice."""
    mask = segmentation.mask(name)
    for index in np.flatnonzero(mask.any(axis=(1, 2))).tolist():
        for polygon in slice_polygons(mask[index]):
            points = np.column_stack([np.full(len(polygon), index), polygon, np.ones(len(polygon))])
            positions = (points @ segmentation.geometry.affine.T)[:, :3]
            yield _item(
                ContourGeometricType="CLOSED_PLANAR",
                NumberOfContourPoints=len(positions),
                ContourData=[f"{value:.4f}" for value in positions.ravel()],
                ContourImageSequence=[_image(slices[index])],
            )


def slice_polygons(mask: Array) -> list[Array]:
    """Returns the closed contours of a mask; holes are joined to the contour around them.

    Args:
        mask: (j, k), bool.

    Returns:
        Polygons (points, 2) in pixels, without a repeated last point.
    """
    from skimage.measure import find_contours

    lines = find_contours(np.pad(mask, 1).astype(np.float32), 0.5)
    polygons = [_without_straight_points(line[:-1] - 1) for line in lines]
    areas = [_signed_area(polygon) for polygon in polygons]
    outer_sign = np.sign(max(areas, key=abs))
    outer = [item for item in zip(areas, polygons, strict=True) if item[0] * outer_sign > 0]
    outer.sort(key=lambda item: abs(item[0]))
    joined = [polygon for _, polygon in outer]
    originals = list(joined)
    for area, hole in zip(areas, polygons, strict=True):
        if area * outer_sign < 0:
            number = next(i for i, shape in enumerate(originals) if _contains(shape, hole[0]))
            joined[number] = _with_keyhole(joined[number], hole)
    return joined


def _without_straight_points(polygon: Array) -> Array:
    """Removes points on the straight line between their neighbours."""
    before = polygon - np.roll(polygon, 1, axis=0)
    after = np.roll(polygon, -1, axis=0) - polygon
    is_corner = np.abs(_cross(before, after)) > _STRAIGHT
    corners: Array = polygon[is_corner]
    return corners


def _signed_area(polygon: Array) -> float:
    following = np.roll(polygon, -1, axis=0)
    return float(_cross(polygon, following).sum() / 2)


def _cross(a: Array, b: Array) -> Array:
    """Returns the cross products of vectors (n, 2)."""
    (a0, a1), (b0, b1) = a.T, b.T
    product: Array = a0 * b1 - a1 * b0
    return product


def _contains(polygon: Array, point: Array) -> bool:
    """Returns whether a point is within a polygon, by the number of edges that a ray crosses."""
    y, x = point
    following = np.roll(polygon, -1, axis=0)
    is_crossed = (polygon[:, 0] > y) != (following[:, 0] > y)
    (y_first, x_first), (y_last, x_last) = polygon[is_crossed].T, following[is_crossed].T
    slope = (x_last - x_first) / (y_last - y_first)
    crossing = x_first + (y - y_first) * slope
    count = int(np.count_nonzero(crossing > x))
    return count % 2 == 1


def _with_keyhole(polygon: Array, hole: Array) -> Array:
    """Joins a hole to a polygon between their nearest points."""
    differences = polygon[:, None] - hole
    distances = np.linalg.norm(differences, axis=2)
    start, entry = divmod(int(distances.argmin()), len(hole))
    inner = np.roll(hole, -entry, axis=0)
    before, after = polygon[: start + 1], polygon[start:]
    return np.concatenate([before, inner, inner[:1], after])


def _coded(code: Code) -> Any:
    return _item(
        CodeValue=code.value,
        CodingSchemeDesignator=code.scheme,
        CodeMeaning=dicom_source.label_text(code.meaning),
    )


def _item(**attributes: Any) -> Any:
    from pydicom.dataset import Dataset

    item = Dataset()
    for name, value in attributes.items():
        setattr(item, name, value)
    return item
