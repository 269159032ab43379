"""The format `rtstruct`: contours of the structures in every slice, for radiotherapy planning.

A contour runs halfway between the centres of pixels inside and outside, so that a reader that fills
it by pixel centres gets the voxels back. A hole is joined to its contour by a channel of no width
(keyhole), as the type CLOSED_PLANAR has no holes.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from fseft.anatomy.terminology import structure_colours
from fseft.builtin.formats.shared import dicom_source
from fseft.plugin import FormatSpec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fseft.anatomy.terminology import Code, Term
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
    terms = dicom_source.terms_of(segmentation.structures)
    dataset = _structure_set(segmentation, slices)
    dataset.ReferencedFrameOfReferenceSequence = [_reference(slices)]
    dataset.StructureSetROISequence = []
    dataset.ROIContourSequence = []
    dataset.RTROIObservationsSequence = []
    colours = structure_colours(terms)
    for number, (name, term) in enumerate(terms.items(), start=1):
        dataset.StructureSetROISequence.append(_region(number, name, slices[0]))
        contours = list(_contours(segmentation.mask(name), slices))
        dataset.ROIContourSequence.append(
            _item(
                ROIDisplayColor=list(colours[name]),
                ReferencedROINumber=number,
                **({"ContourSequence": contours} if contours else {}),
            )
        )
        dataset.RTROIObservationsSequence.append(_observation(number, term))
    dataset.save_as(path, enforce_file_format=True)


def _structure_set(segmentation: Segmentation, slices: list[Any]) -> Any:
    """Returns the data set without regions."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ImplicitVRLittleEndian, generate_uid

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
        SeriesDescription=dicom_source.series_description(segmentation),
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
    # With explicit VRs, a contour could have no more than 64 kB.
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
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


def _observation(number: int, term: Term) -> Any:
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


def _contours(mask: Array, slices: list[Any]) -> Iterator[Any]:
    """Yields the contours of a mask, each in the plane of its slice."""
    import numpy as np

    from fseft.builtin.formats.shared.contours import slice_polygons

    for index in np.flatnonzero(mask.any(axis=(1, 2))).tolist():
        for polygon in slice_polygons(mask[index]):
            positions = _positions_mm(polygon, slices[index])
            yield _item(
                ContourGeometricType="CLOSED_PLANAR",
                NumberOfContourPoints=len(positions),
                ContourData=[f"{value:.4f}" for value in positions.ravel()],
                ContourImageSequence=[_image(slices[index])],
            )


def _positions_mm(polygon: Array, source: Any) -> Array:
    """Returns points (n, 2), in rows and columns of a slice, as (n, 3) LPS mm.

    Positions of slices are often rounded: those of a regular grid would not be in their planes.
    """
    import numpy as np

    along_row, along_column = np.reshape(source.ImageOrientationPatient, (2, 3)).astype(float)
    row_gap, column_gap = map(float, source.PixelSpacing)
    first = np.array(source.ImagePositionPatient, float)
    steps = np.stack([along_column * row_gap, along_row * column_gap])
    positions: Array = first + polygon @ steps
    return positions


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
