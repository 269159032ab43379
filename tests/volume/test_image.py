"""Image files: what is written is read back, and what is wrong is reported with case, file, cause and
remedy.
"""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  the name that everybody gives it
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from fseft.errors import FseftError
from fseft.volume.geometry import Geometry, geometry_mismatch, reorient
from fseft.volume.image import content_digest, read_labels, read_volume, write_labels, write_volume
from fseft.volume.image_files import case_name, is_image

SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha")
DTYPES = (
    "uint8",
    "int8",
    "uint16",
    "int16",
    "uint32",
    "int32",
    "uint64",
    "int64",
    "float32",
    "float64",
)
CODES = [f"{a}{b}{c}" for a in "LRPASI" for b in "LRPASI" for c in "LRPASI"]
CODES = [code for code in CODES if {"LRPASI".index(letter) // 2 for letter in code} == {0, 1, 2}]

IDENTITY = Geometry((3, 4, 5), np.eye(4)[:, [2, 1, 0, 3]])


@st.composite
def geometries(draw):
    affine = np.eye(4)
    rotation = Rotation.from_euler(
        "xyz", draw(st.tuples(*[st.floats(-180, 180)] * 3)), degrees=True
    )
    oblique = draw(st.booleans())
    affine[:3, :3] = rotation.as_matrix() if oblique else np.eye(3)
    affine[:3, :3] *= draw(st.tuples(*[st.floats(0.2, 8)] * 3))
    affine[:3, 3] = draw(st.tuples(*[st.floats(-500, 500)] * 3))
    shape = draw(st.tuples(*[st.integers(1, 6)] * 3))
    return reorient(np.empty(shape), Geometry(shape, affine), draw(st.sampled_from(CODES)))[1]


def ramp(shape, dtype):
    """No two voxels are equal, and the extremes of the type are there."""
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    array.flat[-1] = np.iinfo(dtype).max if np.dtype(dtype).kind in "iu" else np.finfo(dtype).max
    return array


def refused(what, path, **options):
    """The one line that a user reads."""
    with pytest.raises(FseftError) as caught:
        what(path, case="case_07", **options)
    message = str(caught.value)
    assert "\n" not in message
    assert "case case_07" in message
    assert str(path if isinstance(path, Path) else path[-1]) in message
    assert caught.value.hint
    return caught.value.cause


def image(path, array=None, geometry=IDENTITY):
    write_volume(path, ramp((1, *geometry.shape), "int16") if array is None else array, geometry)
    return path


@settings(max_examples=60, deadline=None)
@given(geometries(), st.sampled_from(SUFFIXES), st.sampled_from(DTYPES), st.integers(1, 3))
def test_what_is_written_is_read_back(tmp_path_factory, geometry, suffix, dtype, channels):
    path = tmp_path_factory.getbasetemp() / f"written{suffix}"
    array = ramp(
        (channels, *geometry.shape[:2], geometry.shape[2] + 1), dtype
    )  # never one voxel: it is constant
    geometry = Geometry(array.shape[1:], geometry.affine)
    write_volume(path, array, geometry)

    volume = read_volume(path, channels=channels)

    assert volume.array.dtype == dtype
    np.testing.assert_array_equal(volume.array, array)
    np.testing.assert_allclose(volume.geometry.affine, geometry.affine, atol=1e-4)
    assert volume.geometry.shape == geometry.shape


@settings(max_examples=40, deadline=None)
@given(geometries(), st.sampled_from(SUFFIXES), st.sampled_from(["uint8", "int16", "float32"]))
def test_simpleitk_reads_what_is_written_and_is_read_alike(
    tmp_path_factory, geometry, suffix, dtype
):
    folder = tmp_path_factory.mktemp(
        "itk"
    )  # ITK takes the voxels of a.nii for a.nii.gz where both exist
    ours, theirs = folder / f"ours{suffix}", folder / f"theirs{suffix}"
    array = ramp((1, *geometry.shape[:2], geometry.shape[2] + 1), dtype)
    geometry = Geometry(array.shape[1:], geometry.affine)
    write_volume(ours, array, geometry)
    read = sitk.ReadImage(str(ours))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read), array[0])
    for index in ((0, 0, 0), tuple(size - 1 for size in array.shape[1:])):
        world = read.TransformIndexToPhysicalPoint(index[::-1])
        np.testing.assert_allclose(world, (geometry.affine @ (*index, 1))[:3], atol=1e-3)

    sitk.WriteImage(read, str(theirs))
    back = read_volume(theirs)
    np.testing.assert_array_equal(back.array, array)
    np.testing.assert_allclose(back.geometry.affine, geometry.affine, atol=1e-3)


def test_the_grid_of_an_identity_image_is_spl(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(ramp((3, 4, 5), "int16")), str(tmp_path / "a.mha"))
    geometry = read_volume(tmp_path / "a.mha").geometry
    assert geometry.orientation == "SPL"
    assert geometry.shape == (3, 4, 5)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("highest", "dtype"), [(1, "uint8"), (255, "uint8"), (256, "uint16"), (70_000, "uint32")]
)
@pytest.mark.parametrize("given_as", ["int64", "float32"])
def test_labels_come_back_in_the_smallest_type(tmp_path, suffix, highest, dtype, given_as):
    labels = np.zeros((3, 4, 5), given_as)
    labels[1, 2, 3] = highest
    write_labels(tmp_path / f"a{suffix}", labels, IDENTITY)
    back = read_labels(tmp_path / f"a{suffix}")
    assert back.array.dtype == dtype
    np.testing.assert_array_equal(back.array, labels[np.newaxis])
    assert geometry_mismatch(back.geometry, IDENTITY) is None


def test_labels_may_be_empty_and_boolean(tmp_path):
    write_labels(tmp_path / "a.nrrd", np.zeros((3, 4, 5), bool), IDENTITY)
    assert read_labels(tmp_path / "a.nrrd").array.dtype == np.uint8


@pytest.mark.parametrize(
    ("dtype", "stored"), [("float16", "float32"), ("bool", "uint8"), (">i2", "int16")]
)
def test_types_that_files_cannot_store_are_widened(tmp_path, dtype, stored):
    array = np.arange(60).reshape(1, 3, 4, 5).astype(dtype)
    for suffix in SUFFIXES:
        back = read_volume(image(tmp_path / f"a{suffix}", array)).array
        assert back.dtype == stored
        np.testing.assert_array_equal(back, array)


def test_a_packed_file_is_not_mistaken_for_its_plain_neighbour(tmp_path):
    image(tmp_path / "a.nii", ramp((1, 3, 4, 5), "uint8"))
    array = ramp((1, 3, 4, 5), "uint8")[:, ::-1]
    np.testing.assert_array_equal(read_volume(image(tmp_path / "a.nii.gz", array)).array, array)


def test_equal_images_are_equal_files(tmp_path):
    for suffix in SUFFIXES:
        one, two = (content_digest(image(tmp_path / f"{name}{suffix}")) for name in "ab")
        assert one == two


def test_one_file_per_channel_makes_one_volume_in_that_order(tmp_path):
    first, second = (ramp((1, 3, 4, 5), dtype) for dtype in ("uint8", "int16"))
    paths = [image(tmp_path / "a_0000.nii.gz", first), image(tmp_path / "a_0001.nrrd", second)]
    for channels in (None, 2):
        volume = read_volume(paths, channels=channels)
        np.testing.assert_array_equal(volume.array, np.concatenate([first, second]))
    np.testing.assert_array_equal(read_volume(paths[:1]).array, first)
    assert content_digest(paths) != content_digest(paths[::-1])


@pytest.mark.parametrize("code", ["RAS", "LPI", "PIR"])
def test_channels_with_other_axes_are_turned_to_those_of_the_first(tmp_path, code):
    first, second = (ramp((1, 3, 4, 5), dtype) for dtype in ("uint8", "int16"))
    paths = [image(tmp_path / "a_0000.nii.gz", first)]
    paths.append(image(tmp_path / "a_0001.nii.gz", *reorient(second, IDENTITY, code)))
    volume = read_volume(paths)
    np.testing.assert_array_equal(volume.array, np.concatenate([first, second]))
    assert geometry_mismatch(volume.geometry, IDENTITY) is None


def test_channels_on_different_grids_are_refused(tmp_path):
    affine = IDENTITY.affine.copy()
    affine[2, 0] = 2
    coarse = Geometry(IDENTITY.shape, affine)
    paths = [image(tmp_path / "a_0000.mha"), image(tmp_path / "a_0001.mha", geometry=coarse)]
    cause = refused(read_volume, paths)
    assert cause == "is not on the grid of a_0000.mha: spacing 1×1×2 mm against 1×1×1 mm"
    assert geometry_mismatch(coarse, IDENTITY) in cause


def test_a_wrong_number_of_channels_is_refused(tmp_path):
    frames = image(tmp_path / "a.nii", ramp((20, 3, 4, 5), "uint8"))
    single = image(tmp_path / "b.nii")
    assert refused(read_volume, frames, channels=1) == "has 20 frames (4D), expected 1 channel"
    assert refused(read_volume, single, channels=2) == "has 1 channel, expected 2 channels"
    assert refused(read_volume, [single, frames]) == "has 20 frames (4D), expected 1 channel"
    with pytest.raises(FseftError, match="has 2 image files, expected 3"):
        read_volume([single, single], channels=3)
    with pytest.raises(FseftError, match="has 0 image files, expected 1"):
        read_volume([])


@pytest.mark.parametrize("read", [read_volume, read_labels])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_is_not_an_image_is_refused(tmp_path, read, suffix):
    path = tmp_path / f"a{suffix}"
    assert refused(read, path) == "does not exist"
    path.touch()
    assert refused(read, path) == "is empty (0 bytes)"
    path.write_text("Patient, Age\nMiller, 63\n" * 100)
    assert refused(read, path) in {"is not a NIfTI file", f"is not a {path.suffix} file"}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("part", [0.2, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path, capfd, suffix, part):
    noise = np.random.default_rng(0).integers(0, 255, (1, 20, 20, 20)).astype(np.uint8)
    path = image(tmp_path / f"a{suffix}", noise, Geometry((20, 20, 20), np.eye(4)))
    os.truncate(path, int(part * path.stat().st_size))
    for read in (read_volume, read_labels):
        cause = refused(read, path)
        assert "truncated" in cause or "error of ITK" in cause


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_a_file_with_one_wrong_byte_is_refused(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 255, (1, 20, 20, 20)).astype(np.uint8)
    path = image(tmp_path / f"a{suffix}", noise, Geometry((20, 20, 20), np.eye(4)))
    content = bytearray(path.read_bytes())
    content[len(content) * 2 // 3] ^= 0xFF
    path.write_bytes(content)
    assert any(word in refused(read_volume, path) for word in ("damaged", "error of ITK"))


def test_formats_that_are_not_read_are_named(tmp_path):
    for name in ("a.png", "header.hdr", "pair.hdr", "pair.img"):
        (tmp_path / name).write_bytes(b"something")
    assert refused(read_volume, tmp_path / "a.png") == "has an unsupported format ('.png')"
    assert (
        refused(read_volume, tmp_path / "header.hdr") == "is a header without its image header.img"
    )
    assert refused(read_volume, tmp_path / "pair.hdr") == "has an unsupported format ('.hdr')"
    assert refused(read_volume, tmp_path) == "is a folder without a DICOM series"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_voxels_without_a_number_are_counted(tmp_path, suffix):
    array = ramp((1, 3, 4, 5), "float32")
    array[0, 0, 0, :2], array[0, 1, 1, 1] = np.nan, np.inf
    path = image(tmp_path / f"a{suffix}", array)
    assert refused(read_volume, path) == "contains 3 voxels of NaN or infinity among 60"


def test_an_image_of_one_value_is_refused(tmp_path):
    path = image(tmp_path / "a.mha", np.full((1, 3, 4, 5), -1000, np.int16))
    assert refused(read_volume, path) == "is constant (all voxels are -1000)"


@pytest.mark.parametrize(
    ("value", "cause"),
    [
        (-3, "contains negative labels (lowest -3.0)"),
        (0.5, "contains 1 non-integer voxel (e.g. 0.5)"),
        (np.nan, "contains 1 non-integer voxel (e.g. nan)"),
    ],
)
def test_labels_that_are_none_are_refused(tmp_path, value, cause):
    labels = np.zeros((3, 4, 5), np.float32)
    labels[1, 1, 1] = value
    path = image(tmp_path / "a.nii.gz", labels[np.newaxis])
    assert refused(read_labels, path) == cause
    with pytest.raises(FseftError) as caught:
        write_labels(tmp_path / "b.nii.gz", labels, IDENTITY)
    assert caught.value.cause == cause
    assert not (tmp_path / "b.nii.gz").exists()


@pytest.mark.parametrize("noise", [1e-9, -2e-5, 5e-4])
def test_labels_with_rounding_error_become_integers(tmp_path, noise):
    labels = np.arange(60).reshape(3, 4, 5) % 4
    path = image(tmp_path / "a.nii.gz", (labels * (1 + noise))[np.newaxis])
    np.testing.assert_array_equal(read_labels(path).array[0], labels)


@pytest.mark.parametrize("dtype", ["uint8", "int16"])
@pytest.mark.parametrize("highest", [2, 13, 100])
def test_labels_that_nibabel_scaled_over_the_whole_range_are_read(tmp_path, dtype, highest):
    labels = (np.arange(120).reshape(4, 5, 6) % (highest + 1)).astype(float)
    scaled = nib.Nifti1Image(labels, np.eye(4))
    scaled.set_data_dtype(dtype)
    nib.save(scaled, tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(read_labels(tmp_path / "a.nii.gz").array[0].T, labels)


def test_probabilities_that_nibabel_scaled_are_not_labels(tmp_path):
    scaled = nib.Nifti1Image(np.linspace(0, 1, 120).reshape(4, 5, 6), np.eye(4))
    scaled.set_data_dtype("uint8")
    nib.save(scaled, tmp_path / "a.nii.gz")
    assert "non-integer voxels" in refused(read_labels, tmp_path / "a.nii.gz")


def test_one_channel_per_structure_is_not_a_label_map(tmp_path):
    path = image(tmp_path / "a.nrrd", ramp((2, 3, 4, 5), "uint8"))
    assert refused(read_labels, path) == "has 2 channels, expected one label map"


def test_an_image_is_not_a_label_map(tmp_path):
    voxels = np.arange(24**3, dtype=np.uint16).reshape(1, 24, 24, 24)
    path = image(tmp_path / "a.nrrd", voxels, Geometry((24, 24, 24), np.eye(4)))
    assert (
        refused(read_labels, path)
        == "contains at least 1728 different values, as an image does, not labels"
    )


def test_writing_needs_a_known_suffix_and_an_array_on_the_grid(tmp_path):
    with pytest.raises(FseftError, match="has no image suffix"):
        image(tmp_path / "a.tiff")
    with pytest.raises(FseftError, match="its grid is"):
        image(tmp_path / "a.nii", np.zeros((1, 5, 4, 3)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_is_reported_and_the_old_file_stays(tmp_path, monkeypatch, capfd, suffix):
    resource = pytest.importorskip("resource")  # a limit on file size stands in for the full disk
    old = image(tmp_path / f"a{suffix}").read_bytes()
    noise = np.random.default_rng(0).random((1, 30, 30, 30))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(FseftError) as caught:
            image(tmp_path / f"a{suffix}", noise, Geometry((30, 30, 30), np.eye(4)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(tmp_path / f"a{suffix}") in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [f"a{suffix}"]
    assert (tmp_path / f"a{suffix}").read_bytes() == old


def test_axes_that_are_not_perpendicular_are_kept(tmp_path):
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[0, 1] = 0.1
    path = image(tmp_path / "a.mha", geometry=Geometry((3, 4, 5), affine))
    np.testing.assert_allclose(read_volume(path).geometry.affine, affine, atol=1e-6)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("spacing_mm", [0.002, 40.0])
def test_voxels_of_unusual_size_are_read_with_a_warning(tmp_path, caplog, suffix, spacing_mm):
    geometry = Geometry((3, 4, 5), np.diag([spacing_mm] * 3 + [1.0]))
    path = image(tmp_path / f"a{suffix}", geometry=geometry)
    for _ in range(2):
        read_volume(path)
    (message,) = caplog.messages  # though the file is read again
    assert f"a{suffix}: has voxels of {spacing_mm:g}" in message


@pytest.mark.parametrize("spacing_mm", [1e-6, 2000.0])
def test_voxels_of_impossible_size_are_refused(tmp_path, spacing_mm):
    geometry = Geometry((3, 4, 5), np.diag([spacing_mm, 1.0, 1.0, 1.0]))
    path = image(tmp_path / "a.nii", geometry=geometry)
    with pytest.raises(FseftError, match="which is impossible"):
        read_volume(path)


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("case_0000.nii.gz", "case_0000"),
        ("a.b.nrrd", "a.b"),
        ("A.NII.GZ", "A"),
        ("series", "series"),
        ("x.mha", "x"),
        ("e\u0301tude.nii", "\u00e9tude"),
    ],
)
def test_the_case_name_is_the_file_name_without_image_suffix(name, case):
    assert case_name(Path("folder") / name) == case


def test_images_are_recognised_by_suffix_and_series_by_content(tmp_path):
    assert all(is_image(tmp_path / f"a{suffix}") for suffix in (*SUFFIXES, ".NII.GZ"))
    assert not any(is_image(tmp_path / name) for name in ("a.txt", "a.gz", "dataset.json"))
    assert not is_image(tmp_path)
    (tmp_path / "slice").write_bytes(bytes(128) + b"DICM")
    assert is_image(tmp_path)


def test_the_digest_follows_the_content(tmp_path):
    path = image(tmp_path / "a.nii")
    before = content_digest(path)
    assert content_digest(path) == content_digest([path]) == before
    image(path, ramp((1, 3, 4, 5), "float32"))
    assert content_digest(path) != before
    with pytest.raises(FseftError, match="does not exist"):
        content_digest(tmp_path / "b.nii")
