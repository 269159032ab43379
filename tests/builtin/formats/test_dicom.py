"""DICOM formats: segmentations and contours that refer to a series, read back by pydicom."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")

from fseft.builtin.formats.dicom_seg import write as write_seg  # noqa: E402
from fseft.builtin.formats.rtstruct import write as write_rtstruct  # noqa: E402
from fseft.builtin.formats.shared.contours import slice_polygons  # noqa: E402
from fseft.errors import FseftError  # noqa: E402
from fseft.testing import a_segmentation, format_checks  # noqa: E402
from fseft.volume.geometry import geometry_mismatch, reorient  # noqa: E402
from fseft.volume.image import read_labels, read_volume  # noqa: E402
from fseft.volume.segmentation import Segmentation  # noqa: E402


@pytest.fixture(scope="module", params=[0.0, 0.9], ids=["upright", "tilted gantry"])
def series(request, tmp_path_factory):
    """An oblique CT series of six slices, whose file names are not in the order of the slices."""
    return write_series(tmp_path_factory.mktemp("series") / "ct", shift_mm=request.param)


def write_series(folder, *, shape=(6, 8, 10), shift_mm=0.0):
    """Each slice is displaced within its plane by the shift from the slice below."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    folder.mkdir()
    study, uid, frame = generate_uid(), generate_uid(), generate_uid()
    rng = np.random.default_rng(0)
    row, column = np.array([0.8, 0.6, 0.0]), np.array([-0.6, 0.8, 0.0])
    for number in range(shape[0]):
        item = pydicom.Dataset()
        item.file_meta = FileMetaDataset()
        item.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        item.SOPClassUID, item.SOPInstanceUID = CTImageStorage, generate_uid()
        item.file_meta.MediaStorageSOPClassUID = item.SOPClassUID
        item.file_meta.MediaStorageSOPInstanceUID = item.SOPInstanceUID
        item.StudyInstanceUID, item.SeriesInstanceUID = study, uid
        item.FrameOfReferenceUID = frame
        item.PatientID, item.PatientName, item.Modality = "7", "Doe^Jane", "CT"
        item.ImagePositionPatient = [-20.0, 11.0 + shift_mm * number, -300 + 2.5 * number]
        item.ImageOrientationPatient = [*row, *column]
        item.PixelSpacing, item.SliceThickness = [0.9, 0.8], 2.5
        item.Rows, item.Columns = shape[1:]
        item.SamplesPerPixel, item.PhotometricInterpretation = 1, "MONOCHROME2"
        item.BitsAllocated, item.BitsStored, item.HighBit = 16, 16, 15
        item.PixelRepresentation, item.RescaleIntercept, item.RescaleSlope = 1, 0, 1
        item.InstanceNumber = number + 1
        item.PixelData = rng.integers(-100, 100, shape[1:]).astype("<i2").tobytes()
        item.save_as(folder / f"{(5 * number + 3) % 7}.dcm", enforce_file_format=True)
    return folder


def segmentation_of(series):
    volume = read_volume(series)
    return replace(a_segmentation(series), geometry=volume.geometry)


def positions(series):
    """Height of each slice along the normal, in the order of the array."""
    headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in series.iterdir()]
    return sorted(float(header.ImagePositionPatient[2]) for header in headers)


def masks_of_seg(path, heights, shape):
    """Segment label -> mask, from the frames of a DICOM-SEG by their positions."""
    dataset = pydicom.dcmread(path)
    labels = {item.SegmentNumber: item.SegmentLabel for item in dataset.SegmentSequence}
    masks = {label: np.zeros(shape, bool) for label in labels.values()}
    frames = dataset.pixel_array.reshape(-1, *shape[1:])
    for frame, item in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        number = item.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        height = float(item.PlanePositionSequence[0].ImagePositionPatient[2])
        index = int(np.argmin(np.abs(np.subtract(heights, height))))
        masks[labels[number]][index] |= frame.astype(bool)
    return masks


def masks_of_rtstruct(path, segmentation):
    """Region -> mask, of pixels whose centre is inside an odd number of contours."""
    from skimage.draw import polygon

    dataset = pydicom.dcmread(path)
    names = {item.ROINumber: item.ROIName for item in dataset.StructureSetROISequence}
    inverse = np.linalg.inv(segmentation.geometry.affine)
    masks = {}
    for region in dataset.ROIContourSequence:
        mask = np.zeros(segmentation.labels.shape, bool)
        for contour in region.get("ContourSequence", []):
            points = np.reshape(np.array(contour.ContourData, float), (-1, 3))
            index = np.column_stack([points, np.ones(len(points))]) @ inverse.T
            rows, columns = polygon(index[:, 1], index[:, 2], mask.shape[1:])
            mask[round(index[0, 0]), rows, columns] ^= True
        masks[names[region.ReferencedROINumber]] = mask
    return masks


@pytest.mark.parametrize("name", ["dicom-seg", "rtstruct"])
def test_the_contract(name, series):
    for check in format_checks(name, scan=[series]):
        check.values[0]()


def test_a_dicom_segmentation_has_the_voxels_codes_and_references(series, tmp_path):
    segmentation = segmentation_of(series)
    write_seg(segmentation, tmp_path / "x.dcm")
    masks = masks_of_seg(tmp_path / "x.dcm", positions(series), segmentation.labels.shape)
    assert list(masks) == ["liver", "kidney_left", "Niere rechts", "vein/artery/x", "not there"]
    for mask, structure in zip(masks.values(), segmentation.structures, strict=True):
        np.testing.assert_array_equal(mask, segmentation.mask(structure))
    dataset = pydicom.dcmread(tmp_path / "x.dcm")
    source = pydicom.dcmread(next(series.iterdir()))
    for attribute in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "PatientName"):
        assert dataset[attribute].value == source[attribute].value
    kidney = dataset.SegmentSequence[1]
    kind = kidney.SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodeValue, kind.CodingSchemeDesignator) == ("64033007", "SCT")
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    assert kidney.SegmentAlgorithmName == "lora of phantom-tiny"
    assert dataset.SegmentationType == "BINARY"
    assert len(kidney.RecommendedDisplayCIELabValue) == 3


def test_contours_filled_by_pixel_centres_are_the_voxels(series, tmp_path):
    segmentation = segmentation_of(series)
    write_rtstruct(segmentation, tmp_path / "x.dcm")
    masks = masks_of_rtstruct(tmp_path / "x.dcm", segmentation)
    for mask, structure in zip(masks.values(), segmentation.structures, strict=True):
        np.testing.assert_array_equal(mask, segmentation.mask(structure))
    dataset = pydicom.dcmread(tmp_path / "x.dcm")
    uids = {pydicom.dcmread(file).SOPInstanceUID for file in series.iterdir()}
    contour = dataset.ROIContourSequence[0].ContourSequence[0]
    assert contour.ContourImageSequence[0].ReferencedSOPInstanceUID in uids


@pytest.mark.full
def test_a_contour_may_be_longer_than_64_kilobytes(tmp_path):
    folder = write_series(tmp_path / "ct", shape=(2, 120, 120))
    labels = (np.random.default_rng(0).random((2, 120, 120)) < 0.7).astype(np.uint8)
    segmentation = replace(segmentation_of(folder), labels=labels, structures={"liver": 1})
    write_rtstruct(segmentation, tmp_path / "x.dcm")
    (mask,) = masks_of_rtstruct(tmp_path / "x.dcm", segmentation).values()
    np.testing.assert_array_equal(mask, labels > 0)


def test_contours_are_in_the_planes_of_slices_whose_positions_are_rounded(series, tmp_path):
    copy, shifts = shutil.copytree(series, tmp_path / "ct"), {}
    for number, file in enumerate(sorted(copy.iterdir())):
        item = pydicom.dcmread(file)
        shift = [0.04 * (-1) ** number, 0, 0.03 * (-1) ** (number // 2)]
        item.ImagePositionPatient = [
            float(value) + step
            for value, step in zip(item.ImagePositionPatient, shift, strict=True)
        ]
        item.save_as(file)
        shifts[item.SOPInstanceUID] = item
    write_rtstruct(segmentation_of(copy), tmp_path / "x.dcm")
    count = 0
    for region in pydicom.dcmread(tmp_path / "x.dcm").ROIContourSequence:
        for contour in region.get("ContourSequence", []):
            source = shifts[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
            points = np.reshape(np.array(contour.ContourData, float), (-1, 3))
            offset = points - np.array(source.ImagePositionPatient, float)
            axes = np.reshape(np.array(source.ImageOrientationPatient, float), (2, 3))
            pixels = offset @ axes.T / np.array(source.PixelSpacing, float)[::-1]
            np.testing.assert_allclose(offset @ np.cross(*axes), 0, atol=1e-3)
            halves = 2 * pixels  # a contour runs between centres of pixels
            np.testing.assert_allclose(halves, np.rint(halves), atol=1e-2)
            count += 1
    assert count > 3


@given(arrays(bool, (7, 8)))
def test_polygons_with_holes_and_islands_keep_every_pixel(mask):
    from skimage.draw import polygon

    filled = np.zeros_like(mask)
    for points in slice_polygons(mask) if mask.any() else ():
        rows, columns = polygon(points[:, 0], points[:, 1], mask.shape)
        filled[rows, columns] ^= True
    np.testing.assert_array_equal(filled, mask)


@pytest.mark.parametrize("write", [write_seg, write_rtstruct])
def test_a_series_that_is_gone_is_named(write, series, tmp_path):
    copy = shutil.copytree(series, tmp_path / "ct")
    segmentation = segmentation_of(copy)
    shutil.rmtree(copy)
    with pytest.raises(FseftError, match=r"the series .*cannot be read"):
        write(segmentation, tmp_path / "x.dcm")


def test_missing_identifiers_are_generated_alike_for_all_formats(tmp_path, caplog):
    series = write_series(tmp_path / "ct")
    for file in series.iterdir():
        item = pydicom.dcmread(file)
        item.StudyInstanceUID = item.SeriesInstanceUID = item.SOPInstanceUID = ""
        item.save_as(file)
    segmentation = segmentation_of(series)
    with caplog.at_level(logging.WARNING, "fseft"):
        write_seg(segmentation, tmp_path / "a.dcm")
        write_rtstruct(segmentation, tmp_path / "b.dcm")
    assert "has no SeriesInstanceUID, StudyInstanceUID" in caplog.text
    seg, rtstruct = (pydicom.dcmread(tmp_path / name) for name in ("a.dcm", "b.dcm"))
    assert seg.StudyInstanceUID == rtstruct.StudyInstanceUID != ""


def write_bare_series(folder, *, seed):
    """A series without preamble, file meta information and identifiers, as some exports write."""
    write_series(folder)
    for number, file in enumerate(sorted(folder.iterdir())):
        item = pydicom.dcmread(file)
        item.PixelData = np.full((8, 10), seed + number, "<i2").tobytes()
        for attribute in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
            delattr(item, attribute)
        del item.SOPInstanceUID
        file.unlink()
        pydicom.dcmwrite(file, pydicom.Dataset(item), implicit_vr=True, little_endian=True)
    return folder


def test_series_without_preamble_and_identifiers_are_kept_apart(tmp_path):
    """Two patients never share identifiers, and the same files have the same in any folder."""
    series = {name: write_bare_series(tmp_path / name, seed=seed) for seed, name in enumerate("ab")}
    series["copy"] = shutil.copytree(series["a"], tmp_path / "copy")
    found = {}
    for name, folder in series.items():
        assert b"DICM" not in next(folder.iterdir()).read_bytes()[:132]
        for write in (write_seg, write_rtstruct):
            write(segmentation_of(folder), tmp_path / f"{name}.dcm")
            item = pydicom.dcmread(tmp_path / f"{name}.dcm")
            found.setdefault(name, set()).add((item.StudyInstanceUID, item.FrameOfReferenceUID))
    assert [len(identifiers) for identifiers in found.values()] == [1, 1, 1]
    assert found["a"] == found["copy"]
    assert not {uid for pair in found["a"] for uid in pair} & {
        uid for pair in found["b"] for uid in pair
    }
    references = pydicom.dcmread(tmp_path / "a.dcm").ReferencedFrameOfReferenceSequence[0]
    images = references.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    classes = {item.ReferencedSOPClassUID for item in images.ContourImageSequence}
    assert classes == {pydicom.uid.CTImageStorage}
    assert len({item.ReferencedSOPInstanceUID for item in images.ContourImageSequence}) == 6


@pytest.mark.real
def test_a_real_series_comes_back_voxel_for_voxel(real_data, tmp_path):
    folder = real_data / "dicom_ct"
    labels = read_labels(folder / "straight_labels.nii.gz")
    volume = read_volume(folder / "straight")
    array, geometry = reorient(labels.array[0], labels.geometry, volume.geometry.orientation)
    assert geometry_mismatch(geometry, volume.geometry) is None
    structures = {f"s{value}": int(value) for value in np.unique(labels.array) if value}
    segmentation = Segmentation(
        "x", array, volume.geometry, structures, (folder / "straight",), "test", "1"
    )
    write_seg(segmentation, tmp_path / "seg.dcm")
    write_rtstruct(segmentation, tmp_path / "rt.dcm")
    heights = positions(folder / "straight")
    by_seg = masks_of_seg(tmp_path / "seg.dcm", heights, volume.array.shape[1:])
    by_contours = masks_of_rtstruct(tmp_path / "rt.dcm", segmentation)
    for name in structures:
        np.testing.assert_array_equal(by_seg[name], segmentation.mask(name))
        np.testing.assert_array_equal(by_contours[name], segmentation.mask(name))
