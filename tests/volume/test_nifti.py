"""NIfTI headers: both versions, both byte orders, scaling, sform, qform and damage."""

from __future__ import annotations

import contextlib
import gzip
import struct

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  the name that everybody gives it
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from fseft.errors import FseftError
from fseft.volume.image import read_labels, read_volume, write_labels

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
VOXELS = np.arange(24, dtype=np.int16).reshape(2, 3, 4)


def nifti1(voxels=VOXELS, order="<", dtype="i2", code=4, size=None, **fields):
    """A NIfTI-1 file of a (k, j, i) array, field by field as in nifti1.h."""
    size = size or (3, *voxels.shape[::-1])
    header = bytearray(348)
    struct.pack_into(f"{order}i", header, 0, 348)
    struct.pack_into(f"{order}8h", header, 40, *size, *[1] * (8 - len(size)))
    struct.pack_into(f"{order}2h", header, 70, code, 8 * np.dtype(dtype).itemsize)
    struct.pack_into(f"{order}8f", header, 76, *fields.get("pixdim", (1, 2, 3, 4, 1, 1, 1, 1)))
    struct.pack_into(
        f"{order}3f", header, 108, fields.get("offset", 352), *fields.get("scaling", (1, 0))
    )
    struct.pack_into(f"{order}B", header, 123, fields.get("units", 2))
    struct.pack_into(f"{order}2h", header, 252, *fields.get("codes", (0, 1)))
    struct.pack_into(f"{order}6f", header, 256, *fields.get("qform", (0, 0, 0, 0, 0, 0)))
    struct.pack_into(
        f"{order}12f", header, 280, *np.ravel(fields.get("sform", np.diag([2, 3, 4, 1])[:3]))
    )
    header[344:348] = fields.get("magic", b"n+1\0")
    return bytes(header) + bytes(4) + voxels.astype(f"{order}{dtype}").tobytes()


def nifti2(order="<"):
    header = bytearray(540)
    struct.pack_into(f"{order}i", header, 0, 540)
    header[4:12] = b"n+2\0\r\n\x1a\n"
    struct.pack_into(f"{order}2h", header, 12, 4, 16)
    struct.pack_into(f"{order}8q", header, 16, 3, 4, 3, 2, 1, 1, 1, 1)
    struct.pack_into(f"{order}8d", header, 104, 1, 2, 3, 4, 1, 1, 1, 1)
    struct.pack_into(f"{order}q2d", header, 168, 544, 2, -5)
    struct.pack_into(f"{order}2i", header, 344, 0, 1)
    struct.pack_into(f"{order}12d", header, 400, *np.ravel(np.diag([2, 3, 4, 1])[:3]))
    struct.pack_into(f"{order}i", header, 500, 2)
    return bytes(header) + bytes(4) + VOXELS.astype(f"{order}i2").tobytes()


def saved(path, content):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("dtype", "code"),
    [
        *[("u1", 2), ("u2", 512), ("u4", 768), ("u8", 1280)],
        *[("i1", 256), ("i2", 4), ("i4", 8), ("i8", 1024), ("f4", 16), ("f8", 64)],
    ],
)
def test_every_number_type_is_read_in_both_byte_orders(tmp_path, order, dtype, code):
    path = saved(tmp_path / "a.nii", nifti1(order=order, dtype=dtype, code=code))
    array = read_volume(path).array
    assert array.dtype == np.dtype(dtype)
    assert array.dtype.isnative
    np.testing.assert_array_equal(array[0], VOXELS)


@pytest.mark.parametrize("order", ["<", ">"])
def test_nifti_2_is_read_in_both_byte_orders(tmp_path, order):
    volume = read_volume(saved(tmp_path / "a.nii", nifti2(order)))
    np.testing.assert_array_equal(volume.array[0], 2 * VOXELS.astype(int) - 5)
    assert volume.geometry.spacing_mm == (4, 3, 2)
    assert volume.geometry.orientation == "SAR"


def test_gzip_is_recognised_by_content_not_by_name(tmp_path):
    plain, packed = (
        saved(tmp_path / "a.nii.gz", nifti1()),
        saved(tmp_path / "b.nii", gzip.compress(nifti1())),
    )
    for path in (plain, packed):
        np.testing.assert_array_equal(read_volume(path).array[0], VOXELS)


@pytest.mark.parametrize(
    ("dtype", "code", "scaling", "scaled"),
    [
        ("i2", 4, (1, 0), "int16"),
        ("i2", 4, (0, 5), "int16"),  # a slope of 0 means: not set
        ("i2", 4, (np.nan, 0), "int16"),
        ("u1", 2, (1, -1024), "int16"),
        ("i2", 4, (1, -1024), "int32"),
        ("u1", 2, (-1, 255), "int16"),
        ("i2", 4, (0.5, 0), "float32"),
        ("i4", 8, (0.5, 0), "float64"),
        ("f4", 16, (2, 1), "float32"),
        ("i8", 1024, (4, 0), "float64"),
    ],
)
def test_a_whole_numbered_rescale_keeps_whole_numbers(tmp_path, dtype, code, scaling, scaled):
    path = saved(tmp_path / "a.nii", nifti1(dtype=dtype, code=code, scaling=scaling))
    slope, intercept = scaling if scaling[0] > 0 or scaling[0] < 0 else (1, 0)
    array = read_volume(path).array
    assert array.dtype == scaled
    np.testing.assert_allclose(array[0], VOXELS * slope + intercept)


def test_the_sform_goes_before_the_qform(tmp_path):
    sform = np.array([[0, 2, 0, 10], [3, 0, 0, 20], [0, 0, -4, 30]])
    geometry = read_volume(saved(tmp_path / "a.nii", nifti1(sform=sform, codes=(1, 1)))).geometry
    expected = RAS_TO_LPS @ np.vstack([sform, [0, 0, 0, 1]])
    np.testing.assert_allclose(geometry.affine, expected[:, [2, 1, 0, 3]])


@settings(max_examples=40, deadline=None)
@given(st.tuples(*[st.floats(-180, 180)] * 3), st.sampled_from([-1, 0, 1]))
@example((180.0, 0.0, 0.0), 1)
@example((0.0, 180.0, 0.0), -1)
def test_the_qform_is_read_as_simpleitk_reads_it(tmp_path_factory, angles, handedness):
    quaternion = Rotation.from_euler("xyz", angles, degrees=True).as_quat(canonical=True)[:3]
    content = nifti1(
        codes=(1, 0), pixdim=(handedness, 2, 3, 4, 1, 1, 1, 1), qform=(*quaternion, 10, -20, 30)
    )
    path = saved(tmp_path_factory.getbasetemp() / "qform.nii", content)
    image, geometry = sitk.ReadImage(str(path)), read_volume(path).geometry
    for index in ((0, 0, 0), (1, 2, 3)):
        world = image.TransformIndexToPhysicalPoint(index[::-1])
        np.testing.assert_allclose((geometry.affine @ (*index, 1))[:3], world, atol=1e-3)


def test_a_file_without_an_orientation_is_taken_as_ras_with_a_warning(tmp_path, caplog):
    path = saved(tmp_path / "a.nii", nifti1(codes=(0, 0)))
    geometry = read_volume(path).geometry
    assert caplog.messages == [f"{path}: its NIfTI header has no orientation; RAS is assumed"]
    assert geometry.orientation == "SAR"
    assert geometry.spacing_mm == (4, 3, 2)


@pytest.mark.parametrize(("units", "factor"), [(0, 1), (2, 1), (10, 1), (1, 1000), (3, 0.001)])
def test_units_become_millimetres(tmp_path, units, factor):
    sform = np.diag([2.0, 3, 4, 1])[:3] / factor
    geometry = read_volume(saved(tmp_path / "a.nii", nifti1(units=units, sform=sform))).geometry
    np.testing.assert_allclose(geometry.spacing_mm, (4, 3, 2))


def test_a_sheared_sform_is_kept(tmp_path):
    sform = np.diag([2.0, 3, 4, 1])[:3]
    sform[0, 1] = 0.02
    geometry = read_volume(saved(tmp_path / "a.nii", nifti1(sform=sform))).geometry
    expected = RAS_TO_LPS @ np.vstack([sform, [0, 0, 0, 1]])
    np.testing.assert_allclose(geometry.affine, expected[:, [2, 1, 0, 3]])
    assert geometry.voxel_volume_mm3 == pytest.approx(24)


def test_an_sform_that_no_scanner_has_is_refused_with_its_angle(tmp_path):
    sform = np.diag([2.0, 3, 4, 1])[:3]
    sform[0, 1] = 4.0
    with pytest.raises(FseftError, match=r"far from perpendicular \(off by 53 degrees\)"):
        read_volume(saved(tmp_path / "a.nii", nifti1(sform=sform)))


ROTATED = (0.1, -0.2, 0.05, 10, -20, 30)
SHEARED = np.array([[2, 0.02, 0, 10], [0, 3, 0.1, 20], [0, 0, -4, 30]])
SPACES = {
    "only a qform": {"codes": (1, 0), "qform": ROTATED},
    "only an sform": {"codes": (0, 2), "sform": SHEARED},
    "contradictory forms": {"codes": (1, 4), "qform": ROTATED, "sform": SHEARED},
    "no form": {"codes": (0, 0), "qform": ROTATED, "sform": SHEARED},
    "microns": {"codes": (0, 1), "units": 3, "sform": np.diag([2e3, 3e3, 4e3, 1])[:3]},
    "a mirrored axis": {"codes": (1, 0), "pixdim": (-1, 2, 3, 4, 1, 1, 1, 1), "qform": ROTATED},
    "negative spacing": {"codes": (1, 0), "pixdim": (1, -2, 3, -4, 1, 1, 1, 1)},
}


@pytest.mark.parametrize("name", SPACES)
def test_a_mask_has_the_space_of_its_scan_in_every_program(tmp_path, name):
    scan = saved(tmp_path / "scan.nii", nifti1(**SPACES[name]))
    geometry = read_labels(scan).geometry
    write_labels(tmp_path / "mask.nii.gz", VOXELS, geometry, scan=scan)
    ours, theirs = nib.load(tmp_path / "mask.nii.gz"), nib.load(scan)
    np.testing.assert_array_equal(ours.affine, theirs.affine)
    for form in ("get_qform", "get_sform"):
        mine, scans = (getattr(file.header, form)(coded=True) for file in (ours, theirs))
        np.testing.assert_array_equal(mine[0], scans[0])
        assert mine[1] == scans[1]
    np.testing.assert_array_equal(
        read_labels(tmp_path / "mask.nii.gz").geometry.affine, geometry.affine
    )


def test_a_mask_has_the_space_of_a_scan_of_the_other_version(tmp_path):
    scan = saved(tmp_path / "scan.nii", nifti2(">"))
    write_labels(tmp_path / "a.nii", VOXELS, read_volume(scan).geometry, scan=scan)
    np.testing.assert_array_equal(nib.load(tmp_path / "a.nii").affine, nib.load(scan).affine)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_header_smaller_than_its_voxels_is_refused(tmp_path, pack):
    voxels = np.zeros((20, 24, 28), np.int16)
    content = nifti1(voxels, size=(3, 28, 24, 2))
    with pytest.raises(FseftError, match="contains 24192 bytes behind the voxels"):
        read_volume(saved(tmp_path / "a.nii", pack(content)))


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_voxels_that_begin_within_the_header_are_refused(tmp_path, pack):
    """Programs that believe it show the header as voxels, and all others displaced."""
    with pytest.raises(FseftError, match="promises 48 bytes of voxels at byte 0"):
        read_volume(saved(tmp_path / "a.nii", pack(nifti1(offset=0))))


def test_padding_behind_the_voxels_is_ignored(tmp_path):
    read_volume(saved(tmp_path / "a.nii", nifti1() + bytes(512)))


def test_trailing_axes_of_one_are_dropped_and_frames_are_channels(tmp_path):
    trailing = saved(tmp_path / "a.nii", nifti1(size=(5, 4, 3, 2, 1, 1)))
    assert read_volume(trailing, channels=1).array.shape == (1, 2, 3, 4)
    frames = saved(tmp_path / "b.nii", nifti1(np.stack([VOXELS, -VOXELS]), size=(4, 4, 3, 2, 2)))
    np.testing.assert_array_equal(read_volume(frames, channels=2).array, [VOXELS, -VOXELS])


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({"size": (5, 4, 3, 1, 1, 2)}, "has 5 dimensions (4×3×1×1×2), expected 3 or 4"),
        ({"size": (2, 4, 6)}, "has 2 dimensions (4×6), expected 3 or 4"),
        (
            {"size": (3, 4, -3, 2)},
            "has a damaged NIfTI header (dimensions [3, 4, -3, 2, 1, 1, 1, 1])",
        ),
        ({"code": 128}, "is a colour (RGB) image"),
        ({"code": 32}, "contains complex numbers"),
        ({"code": 1536}, "has the unsupported NIfTI datatype 1536"),
        ({"magic": b"ni1\0"}, "is a NIfTI header without voxels"),
        ({"sform": np.zeros((3, 4))}, "has a degenerate grid (spacing 0×0×0 mm)"),
    ],
)
@pytest.mark.parametrize("read", [read_volume, read_labels])
def test_a_file_without_a_3d_image_of_real_numbers_is_refused(tmp_path, read, fields, cause):
    with pytest.raises(FseftError) as caught:
        read(saved(tmp_path / "a.nii", nifti1(**fields)))
    assert caught.value.cause == cause
    assert caught.value.file == tmp_path / "a.nii"
    assert caught.value.hint


def test_missing_voxels_are_counted(tmp_path):
    with pytest.raises(FseftError, match="it contains 40 of 48 bytes of voxels"):
        read_volume(saved(tmp_path / "a.nii", nifti1()[:-8]))
    with pytest.raises(FseftError, match="promises 53686272000000 bytes"):
        read_volume(saved(tmp_path / "a.nii", nifti1(size=(3, 32000, 32000, 26214))))


def test_a_gzip_file_that_lacks_only_its_checksum_is_refused(tmp_path):
    with pytest.raises(FseftError, match="truncated or damaged"):
        read_volume(saved(tmp_path / "a.nii.gz", gzip.compress(nifti1())[:-4]))


@settings(max_examples=200, deadline=None)
@given(st.data(), st.sampled_from([nifti1(), nifti2(">"), gzip.compress(nifti1(), mtime=0)]))
def test_no_damage_to_a_file_leads_to_another_error_than_ours(tmp_path_factory, data, content):
    damaged = bytearray(content)
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        damaged[place] = data.draw(st.integers(0, 255))
    path = saved(tmp_path_factory.getbasetemp() / "damaged.nii", damaged)
    with contextlib.suppress(FseftError):
        assert read_volume(path).array.ndim == 4
