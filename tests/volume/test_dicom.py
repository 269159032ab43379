"""DICOM series: a regular stack is a volume, anything else is refused with its numbers."""

from __future__ import annotations

import locale
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  the name that everybody gives it
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from fseft.errors import FseftError
from fseft.volume.geometry import shear_degrees
from fseft.volume.image import content_digest, read_volume
from fseft.volume.image_files import is_image
from fseft.volume.nrrd_mha import simpleitk

CT = "1.2.840.10008.5.1.4.1.1.2"


def write_slice(
    path, pixels, position, axes=(1, 0, 0, 0, 1, 0), series="1.2.3", modality="CT", **tags
):
    image = sitk.GetImageFromArray(pixels[np.newaxis])
    image.SetSpacing((0.5, 0.75, 9.0))
    values = {
        "0008|0016": CT,
        "0008|0060": modality,
        "0018|0050": "9.0",  # slice thickness, which is not the distance of the slices
        "0020|000d": "1.2",
        "0020|000e": series,
        "0020|0032": "\\".join(f"{x:.8g}" for x in position),
        "0020|0037": "\\".join(f"{x:.8g}" for x in axes),
    }
    for key, value in {**values, **tags}.items():
        image.SetMetaData(key, value)
    with simpleitk():  # keeps the locale of the test process
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(path))
        writer.Execute(image)


def write_series(folder, positions, **options):
    """Slices along the scanner axis or given points; pixel values count up with the position in
    the list.
    """
    folder.mkdir(exist_ok=True)
    for number, position in enumerate(positions):
        pixels = np.arange(12, dtype=np.int16).reshape(3, 4) + 100 * number
        point = position if np.ndim(position) else (-10, -20, position)
        name = options.get("series", "a")
        write_slice(folder / f"{name}{len(positions) - number:03}.dcm", pixels, point, **options)
    return folder


def refused(folder):
    with pytest.raises(FseftError) as caught:
        read_volume(folder, case="case_07")
    assert "case case_07" in str(caught.value)
    assert str(folder) in str(caught.value)
    assert caught.value.hint
    return caught.value.cause


def test_slices_are_ordered_by_position_and_spaced_by_distance(tmp_path):
    folder = write_series(tmp_path, [30, 32.5, 35, 37.5])
    volume = read_volume(folder, case="a")
    assert volume.array.dtype == "int16"
    np.testing.assert_array_equal(volume.array[0, :, 0, 0], [0, 100, 200, 300])
    np.testing.assert_allclose(volume.geometry.spacing_mm, (2.5, 0.75, 0.5))
    np.testing.assert_allclose(volume.geometry.origin_mm, (-10, -20, 30))
    assert volume.geometry.orientation == "SPL"
    assert volume.geometry.shape == (4, 3, 4)


@settings(max_examples=15, deadline=None)
@given(st.tuples(*[st.floats(-180, 180)] * 3), st.floats(0.5, 8))
def test_a_volume_may_lie_at_any_angle(tmp_path_factory, angles, gap_mm):
    direction = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    points = [np.array([5, 6, 7]) + k * gap_mm * direction[:, 2] for k in range(3)]
    folder = write_series(
        tmp_path_factory.mktemp("oblique"), points, axes=direction[:, :2].T.ravel()
    )
    geometry = read_volume(folder).geometry
    expected = direction[:, ::-1] * (gap_mm, 0.75, 0.5)
    np.testing.assert_allclose(geometry.affine[:3, :3], expected, atol=1e-4)
    np.testing.assert_allclose(geometry.origin_mm, points[0], atol=1e-4)


def test_a_missing_slice_is_refused_with_the_gaps(tmp_path):
    folder = write_series(tmp_path, [0, 2.5, 5, 10, 12.5])
    assert refused(folder) == "has unevenly spaced slices (gaps from 2.5 to 5 mm)"


@pytest.mark.parametrize("digits", [1, 2])
def test_positions_that_were_rounded_are_still_even(tmp_path, digits):
    folder = write_series(tmp_path, [round(0.625 * number, digits) for number in range(9)])
    np.testing.assert_allclose(read_volume(folder).geometry.spacing_mm[0], 0.625)


@pytest.mark.parametrize("gap_mm", [0.1, 0.625, 5.0])
@pytest.mark.parametrize("missing", [1, 4, 7])
def test_a_missing_slice_is_found_in_stacks_of_any_gap(tmp_path, gap_mm, missing):
    positions = [round(gap_mm * number, 3) for number in range(9) if number != missing]
    assert "unevenly spaced slices" in refused(write_series(tmp_path, positions))


@pytest.mark.parametrize("degrees", [-30, -2, 10])
def test_slices_of_a_tilted_gantry_lie_where_their_headers_say(tmp_path, degrees):
    angle = np.radians(degrees)
    axes = (1, 0, 0, 0, np.cos(angle), -np.sin(angle))
    heights = np.arange(12) * 5.0
    geometry = read_volume(write_series(tmp_path, list(heights), axes=axes)).geometry
    columns = np.column_stack([(0, 0, 5), 0.75 * np.array(axes[3:]), (0.5, 0, 0)])
    np.testing.assert_allclose(geometry.affine[:3, :3], columns, atol=1e-6)
    assert shear_degrees(geometry.affine) == pytest.approx(abs(degrees))


def test_big_endian_slices_are_read(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    expected = read_volume(write_series(tmp_path, [0, 2, 4])).array
    for file in tmp_path.iterdir():
        item = pydicom.dcmread(file)
        item.PixelData = item.pixel_array.astype(">i2").tobytes()
        item.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRBigEndian
        encoding = {"implicit_vr": False, "little_endian": False, "force_encoding": True}
        pydicom.dcmwrite(file, item, **encoding)
    np.testing.assert_array_equal(read_volume(tmp_path).array, expected)


def test_a_tilt_that_no_gantry_has_is_refused(tmp_path):
    axes = (1, 0, 0, 0, 0.6, -0.8)
    folder = write_series(tmp_path, [0, 5, 10], axes=axes)
    assert "voxel axes are far from perpendicular (off by 53 degrees)" in refused(folder)


@pytest.mark.parametrize("tilt_mm", [0, 2])
def test_slices_that_are_displaced_are_refused(tmp_path, tilt_mm):
    """Whatever the tilt of the others."""
    points = [np.array([-10, -20 + tilt_mm * number, 5 * number]) for number in range(5)]
    read_volume(write_series(tmp_path / "a", points))
    points[2][0] += 4
    cause = "has slices that are displaced by up to 4 mm within their plane"
    assert refused(write_series(tmp_path / "b", points)) == cause


def test_slices_at_one_position_are_reported_as_several_volumes_or_copies(tmp_path):
    folder = write_series(tmp_path, [0, 0, 5, 10])
    assert refused(folder) == "has several slices at one position (a003.dcm and a004.dcm)"


def test_all_slices_at_one_position_are_refused(tmp_path):
    assert refused(write_series(tmp_path, [3, 3, 3])) == "has all slices at one position"


def test_several_series_are_listed(tmp_path):
    write_series(tmp_path, [0, 1, 2], series="1.2.3")
    write_series(tmp_path, [0, 1], series="1.2.4")
    assert refused(tmp_path) == "contains 2 series: 1.2.3 (3 files), 1.2.4 (2 files)"


def test_one_slice_is_not_a_volume(tmp_path):
    assert refused(write_series(tmp_path, [0])) == "contains a series of one slice"


def test_slices_of_different_size_are_refused(tmp_path):
    write_series(tmp_path, [0, 1])
    write_slice(tmp_path / "large.dcm", np.zeros((5, 6), np.int16), (-10, -20, 2))
    assert refused(tmp_path) == "has slices of different size (4×3 and 6×5 pixels)"


def test_slices_of_different_orientation_are_refused(tmp_path):
    write_series(tmp_path, [0, 1])
    write_slice(
        tmp_path / "scout.dcm", np.ones((3, 4), np.int16), (-10, -20, 2), axes=(1, 0, 0, 0, 0, -1)
    )
    assert refused(tmp_path) == "has slices of different orientation"


def test_colour_slices_are_refused(tmp_path):
    for z in range(2):
        image = sitk.GetImageFromArray(np.zeros((1, 3, 4, 3), np.uint8), isVector=True)
        image.SetMetaData("0020|000e", "1.2.3")
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(tmp_path / f"{z}.dcm"))
        writer.Execute(image)
    assert refused(tmp_path) == "is a colour (RGB) image"


def test_a_folder_without_slices_and_a_lone_file_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing here")
    assert refused(tmp_path) == "is a folder without a DICOM series"
    write_series(tmp_path, [0, 1])
    lone = next(tmp_path.glob("*.dcm"))
    assert refused(lone) == "is a single DICOM file"


def test_a_cut_slice_is_refused_also_at_the_end_of_the_stack(tmp_path):
    write_series(tmp_path, [0, 1, 2])
    last = min(tmp_path.iterdir())
    last.write_bytes(last.read_bytes()[:-10])
    with pytest.raises(FseftError, match="is a damaged DICOM file") as caught:
        read_volume(tmp_path)
    assert caught.value.file == last


STORAGE = "1.2.840.10008.5.1.4.1.1."


def dicom_object(path, sop_class):
    """A file without pixels, such as a structure set: meta information, and its class."""

    def element(tag, value):
        padded = value.encode() + b"\0" * (len(value) % 2)
        return tag + b"UI" + len(padded).to_bytes(2, "little") + padded

    meta = element(b"\x02\0\x02\0", sop_class) + element(b"\x02\0\x10\0", "1.2.840.10008.1.2.1")
    size = b"\x02\0\0\0UL\x04\0" + len(meta).to_bytes(4, "little")
    data = element(b"\x08\0\x16\0", sop_class) + element(b"\x20\0\x0e\0", "1.2.3")
    path.write_bytes(bytes(128) + b"DICM" + size + meta + data)


@pytest.mark.parametrize(
    ("sop_class", "kind"),
    [
        (f"{STORAGE}481.3", "RT structure set"),
        (f"{STORAGE}88.22", "structured report"),
        (f"{STORAGE}66.4", "segmentation"),
        (f"{STORAGE}66", "raw data"),
        (f"{STORAGE}11.1", "presentation state"),
        ("1.2.840.10008.1.3.10", "directory"),
        ("1.3.46.670589.11.0.0.12.1", "SOP class 1.3.46.670589.11.0.0.12.1"),
    ],
)
def test_other_objects_are_skipped_and_named(tmp_path, caplog, sop_class, kind):
    write_series(tmp_path, [0, 2, 4])
    dicom_object(tmp_path / "XX_0001", sop_class)
    assert read_volume(tmp_path).geometry.shape == (3, 3, 4)
    skipped = f"{tmp_path}: skipped 1 DICOM file of other kinds: XX_0001 ({kind})"
    assert caplog.messages == [skipped]


def test_a_screenshot_in_the_folder_is_skipped(tmp_path, caplog):
    write_series(tmp_path, [0, 2, 4])
    write_slice(
        tmp_path / "dose.dcm",
        np.zeros((8, 8), np.int16),
        (0, 0, 0),
        series="1.2.9",
        **{"0008|0016": f"{STORAGE}7"},
    )
    assert read_volume(tmp_path).geometry.shape == (3, 3, 4)
    assert "dose.dcm (secondary capture)" in caplog.text


def test_a_series_of_secondary_captures_is_read(tmp_path):
    write_series(tmp_path, [0, 2, 4], **{"0008|0016": f"{STORAGE}7"})
    assert read_volume(tmp_path).geometry.shape == (3, 3, 4)


def test_a_folder_of_other_objects_is_refused_with_their_kind(tmp_path):
    dicom_object(tmp_path / "a.dcm", f"{STORAGE}481.3")
    with pytest.raises(FseftError, match=r"another kind \(RT structure set\)"):
        read_volume(tmp_path)


PIXEL_SPACING = b"\x28\0\x30\0\x06\0\0\0.75\\.5"


def test_slices_without_pixel_spacing_are_refused(tmp_path):
    write_series(tmp_path, [0, 2, 4])
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes().replace(PIXEL_SPACING, b""))
    with pytest.raises(FseftError, match="has no PixelSpacing"):
        read_volume(tmp_path)


def test_a_slice_with_fewer_rows_than_pixels_is_refused(tmp_path):
    write_series(tmp_path, [0, 2, 4])
    for path in tmp_path.iterdir():
        rows = b"\x28\0\x10\0\x02\0\0\0"
        path.write_bytes(path.read_bytes().replace(rows + b"\x03\0", rows + b"\x02\0"))
    with pytest.raises(FseftError, match="contains 8 bytes behind the pixels"):
        read_volume(tmp_path)


def test_slices_of_different_pixel_spacing_are_refused(tmp_path):
    write_series(tmp_path, [0, 2, 4])
    path = min(tmp_path.iterdir())
    path.write_bytes(path.read_bytes().replace(b".75\\.5", b".85\\.5"))
    assert refused(tmp_path) == "has slices of different pixel spacing"


def test_files_without_preamble_are_read(tmp_path):
    expected = read_volume(write_series(tmp_path, [0, 2, 4]))
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[132:])
    assert is_image(tmp_path)
    np.testing.assert_array_equal(read_volume(tmp_path).array, expected.array)


def test_a_dicom_segmentation_is_not_an_image(tmp_path):
    write_series(tmp_path, [0, 1], modality="SEG")
    with pytest.raises(FseftError, match="is a DICOM-SEG, not an image"):
        read_volume(tmp_path)


def test_the_digest_of_a_series_follows_every_slice_but_not_its_place(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        write_series(folder, [0, 1, 2])
        assert is_image(folder)
    for path in one.iterdir():
        (two / path.name).write_bytes(path.read_bytes())
    assert content_digest(one) == content_digest(two)
    changed = sorted(two.iterdir())[1]
    changed.write_bytes(Path(changed).read_bytes()[:-1] + b"\x7f")
    assert content_digest(one) != content_digest(two)


def test_slices_are_rescaled_one_by_one_into_one_type(tmp_path):
    write_series(tmp_path, [0, 1, 2])
    middle = sorted(tmp_path.iterdir())[1]
    slope = b"\x28\x00\x53\x10\x02\x00\x00\x00"  # the tag and its length
    content = middle.read_bytes()
    assert slope + b"1 " in content
    middle.write_bytes(content.replace(slope + b"1 ", slope + b".5"))
    volume = read_volume(tmp_path)
    assert volume.array.dtype == "float64"
    np.testing.assert_array_equal(volume.array[0, :, 0, 1], [1, 50.5, 201])


def test_reading_a_series_keeps_the_character_set_of_the_process(tmp_path):
    write_series(tmp_path, [0, 2, 4])
    before = locale.setlocale(locale.LC_CTYPE)
    read_volume(tmp_path)
    assert locale.setlocale(locale.LC_CTYPE) == before
