"""The format `dicom-seg`: a DICOM segmentation with one binary segment per structure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fseft.anatomy.terminology import structure_colours
from fseft.builtin.formats.shared import dicom_source
from fseft.plugin import FormatSpec

if TYPE_CHECKING:
    from pathlib import Path

    from fseft.anatomy.terminology import Code, Colour, Term
    from fseft.volume.segmentation import Segmentation

SPEC = FormatSpec(
    name="dicom-seg",
    factory="fseft.builtin.formats.dicom_seg:write",
    summary="a DICOM segmentation (SEG) that refers to the series, with SNOMED CT codes",
    suffix=".seg.dcm",
    needs_series=True,
    packages=("highdicom", "pydicom"),
    extra="fseft[dicom]",
)


def write(segmentation: Segmentation, path: Path) -> None:
    """Writes a DICOM segmentation in BINARY encoding, which all viewers read.

    Segments are numbered from 1 in the order of the structures, also those without a voxel.

    Args:
        segmentation: A segmentation of a DICOM series.
        path: File to write.

    Raises:
        FseftError: The series has changed or is gone.
    """
    import highdicom
    import numpy as np

    from fseft.volume.label_values import translate

    slices = dicom_source.source_slices(segmentation)
    numbers = {value: number for number, value in enumerate(segmentation.structures.values(), 1)}
    frames = translate(segmentation.labels, numbers, np.min_scalar_type(len(numbers)))
    seg = highdicom.seg.Segmentation(
        source_images=slices,
        pixel_array=frames,
        segmentation_type="BINARY",
        segment_descriptions=_segments(segmentation),
        omit_empty_frames=bool(frames.any()),
        **_series(segmentation),
    )
    seg.save_as(path)


def _series(segmentation: Segmentation) -> dict[str, Any]:
    """Returns the attributes of the new series, its only instance, and the equipment."""
    from pydicom.uid import generate_uid

    return {
        "series_instance_uid": generate_uid(),
        "series_number": dicom_source.SERIES_NUMBERS["SEG"],
        "series_description": dicom_source.series_description(segmentation),
        "sop_instance_uid": generate_uid(),
        "instance_number": 1,
        "manufacturer": dicom_source.MANUFACTURER,
        "manufacturer_model_name": dicom_source.MODEL,
        "software_versions": segmentation.version,
        "device_serial_number": "0",
        "content_label": "SEGMENTATION",
        "specific_character_set": dicom_source.UTF8,
    }


def _segments(segmentation: Segmentation) -> list[Any]:
    """Returns the description of each structure."""
    names = list(segmentation.structures)
    terms = dicom_source.terms_of(names)
    colours, algorithm = structure_colours(names), _algorithm(segmentation)
    return [
        _segment(number, name, terms[name], colours[name], algorithm)
        for number, name in enumerate(names, start=1)
    ]


def _algorithm(segmentation: Segmentation) -> Any:
    import highdicom
    from pydicom.sr.codedict import codes

    return highdicom.AlgorithmIdentificationSequence(
        name=dicom_source.label_text(segmentation.algorithm),
        family=codes.cid7162.ArtificialIntelligence,
        version=segmentation.version,
    )


def _segment(number: int, name: str, term: Term, colour: Colour, algorithm: Any) -> Any:
    import highdicom

    segment = highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=dicom_source.label_text(name),
        segmented_property_category=_coded(term.category),
        segmented_property_type=_coded(term.kind),
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm,
        anatomic_regions=[_coded(term.region)] if term.region else None,
        display_color=highdicom.color.CIELabColor.from_rgb(*colour),
    )
    if term.side:
        kind = segment.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [_coded(term.side)]
    if term.region_side:
        region = segment.AnatomicRegionSequence[0]
        region.AnatomicRegionModifierSequence = [_coded(term.region_side)]
    return segment


def _coded(code: Code) -> Any:
    import highdicom

    return highdicom.sr.CodedConcept(code.value, code.scheme, dicom_source.label_text(code.meaning))
