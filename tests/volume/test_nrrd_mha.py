"""NRRD and MetaImage: what ITK reads, and what it would read wrongly or in silence."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  the name that everybody gives it

from fseft.errors import FseftError
from fseft.volume.image import read_volume
from fseft.volume.nrrd_mha import simpleitk

VOXELS = np.arange(24, dtype=np.int16).reshape(2, 3, 4)


def saved(path, array, **options):
    sitk.WriteImage(sitk.GetImageFromArray(array, **options), str(path))
    return path


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_a_fourth_dimension_and_vector_components_are_both_channels(tmp_path, suffix):
    frames = saved(tmp_path / f"a{suffix}", np.stack([VOXELS, -VOXELS]), isVector=False)
    vector = saved(tmp_path / f"b{suffix}", np.stack([VOXELS, -VOXELS], axis=-1), isVector=True)
    for path in (frames, vector):
        np.testing.assert_array_equal(read_volume(path, channels=2).array, [VOXELS, -VOXELS])


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_a_trailing_axis_of_one_is_dropped(tmp_path, suffix):
    volume = read_volume(
        saved(tmp_path / f"a{suffix}", VOXELS[np.newaxis], isVector=False), channels=1
    )
    np.testing.assert_array_equal(volume.array, VOXELS[np.newaxis])
    assert volume.geometry.shape == (2, 3, 4)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_planes_and_five_dimensions_are_refused(tmp_path, suffix):
    plane = saved(tmp_path / f"a{suffix}", VOXELS[0])
    with pytest.raises(FseftError, match=r"has 2 dimensions \(4×3\), expected 3"):
        read_volume(plane)
    vectors = saved(tmp_path / f"b{suffix}", np.zeros((2, 2, 3, 4, 2)), isVector=True)
    with pytest.raises(FseftError, match=r"has 4 dimensions \(4×3×2×2\), expected 3"):
        read_volume(vectors)


def test_complex_numbers_are_refused(tmp_path):
    path = saved(tmp_path / "a.nrrd", VOXELS.astype(np.complex64))
    with pytest.raises(FseftError, match="contains voxels of the type 'complex of 32-bit float'"):
        read_volume(path)


def test_colours_are_refused(tmp_path):
    path = saved(tmp_path / "a.nrrd", np.zeros((2, 3, 4, 3), np.uint8), isVector=True)
    path.write_bytes(path.read_bytes().replace(b"kinds: vector", b"kinds: RGB-color"))
    with pytest.raises(FseftError, match="is a colour"):
        read_volume(path)


@pytest.mark.parametrize("space", ["right-anterior-superior", "left-posterior-superior"])
def test_the_space_of_an_nrrd_file_is_heeded(tmp_path, space):
    path = saved(tmp_path / "a.nrrd", VOXELS)
    path.write_bytes(path.read_bytes().replace(b"left-posterior-superior", space.encode()))
    assert read_volume(path).geometry.orientation == ("SPL" if space.startswith("left") else "SAR")


def metaimage(path, packed, size, big_endian=False):
    header = (
        f"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = {big_endian}\n"
        f"CompressedData = True\nCompressedDataSize = {size}\nElementSpacing = 1 2 3\nDimSize = 4 3 2\n"
        "ElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    )
    path.write_bytes(header.encode() + packed)
    return path


@pytest.mark.parametrize("big_endian", [True, False])
def test_both_byte_orders_of_metaimage_are_read(tmp_path, big_endian):
    packed = zlib.compress(VOXELS.astype(">i2" if big_endian else "<i2").tobytes())
    volume = read_volume(metaimage(tmp_path / "a.mha", packed, len(packed), big_endian))
    np.testing.assert_array_equal(volume.array[0], VOXELS)
    assert volume.geometry.spacing_mm == (3, 2, 1)


def test_a_metaimage_that_itk_would_read_as_noise_is_refused(tmp_path):
    packed, short = zlib.compress(VOXELS.tobytes()), zlib.compress(VOXELS.tobytes()[:-4])
    path = tmp_path / "a.mha"
    with pytest.raises(FseftError, match=f"CompressedDataSize is 7, not {len(packed)}"):
        read_volume(metaimage(path, packed, 7))
    with pytest.raises(FseftError, match="contains 44 of 48 bytes of voxels"):
        read_volume(metaimage(path, short, len(short)))
    with pytest.raises(FseftError, match="truncated or damaged"):
        read_volume(metaimage(path, packed[:-3], len(packed)))
    with pytest.raises(FseftError, match="incorrect header check"):
        read_volume(metaimage(path, b"noise" * 9, 45))


@pytest.mark.parametrize(
    ("suffix", "field"), [(".mha", b"ElementSpacing"), (".nrrd", b"space directions")]
)
def test_a_file_without_spacing_is_refused(tmp_path, suffix, field):
    path = saved(tmp_path / f"a{suffix}", VOXELS)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(line for line in lines if not line.startswith(field)))
    with pytest.raises(FseftError, match="has no voxel spacing in its header"):
        read_volume(path)


def test_a_file_without_orientation_is_taken_as_lps_with_a_warning(tmp_path, caplog):
    path = tmp_path / "a.mha"
    packed = zlib.compress(VOXELS.tobytes())
    assert read_volume(metaimage(path, packed, len(packed))).geometry.orientation == "SPL"
    assert caplog.messages == [f"{path}: its header has no orientation; LPS is assumed"]


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_a_header_smaller_than_its_voxels_is_refused(tmp_path, suffix, compressed):
    path = tmp_path / f"a{suffix}"
    image = sitk.GetImageFromArray(np.zeros((20, 24, 28), np.int16))
    sitk.WriteImage(image, str(path), useCompression=compressed)
    path.write_bytes(path.read_bytes().replace(b"28 24 20", b"28 24 02"))
    with pytest.raises(FseftError, match=r"behind the voxels|contains \d+ of \d+ bytes"):
        read_volume(path)


def test_itk_is_silent_inside_and_as_before_outside():
    before = sitk.ProcessObject_GetGlobalWarningDisplay()
    with simpleitk() as quiet:
        assert not quiet.ProcessObject_GetGlobalWarningDisplay()
    assert before == sitk.ProcessObject_GetGlobalWarningDisplay()


def test_errors_of_itk_become_one_line():
    with pytest.raises(FseftError, match=r"^causes an error of ITK \(the last\)\."), simpleitk():
        raise RuntimeError("Exception thrown in\n\n  the last \n")
