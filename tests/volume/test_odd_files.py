"""Real files, ordinary and odd: what each must give, or why it must be refused."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  the name that everybody gives it

from fseft.errors import FseftError
from fseft.volume.geometry import bounding_box, geometry_mismatch, reorient
from fseft.volume.image import content_digest, read_labels, read_volume, write_labels
from fseft.volume.image_files import is_image

pytestmark = pytest.mark.real


def refused(read, path, **options):
    with pytest.raises(FseftError) as caught:
        read(path, case="case_07", **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"case case_07, {path}: ")
    assert caught.value.hint
    return caught.value.cause


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "orientation", "lowest", "highest"),
    [
        ("odd_files/big.nii.gz", (1, 21, 64, 64), "float32", "SAL", -8.710751, 18.58253),
        ("odd_files/little.nii.gz", (1, 21, 64, 64), "float32", "SAL", -8.710751, 18.58253),
        ("odd_files/example4d.nii.gz", (2, 24, 96, 128), "int16", "SAL", 0, 1162),
        ("odd_files/example_nifti2.nii.gz", (2, 12, 20, 32), "int16", "SAL", 46, 757),
        ("odd_files/functional.nii", (20, 3, 21, 17), "float32", "SAL", 629.8262, 5571.622),
        ("odd_files/trailing_axis_labels.nii.gz", (1, 110, 172, 141), "int16", "SAL", 0, 659),
        ("torso_ct/example_ct.nii.gz", (1, 112, 101, 122), "int32", "SAR", -1207, 3382),
        ("torso_ct/example_ct_sm.nii.gz", (1, 30, 101, 122), "int16", "SAR", -1100, 1207),
        ("torso_ct/example_mr_sm.nii.gz", (1, 20, 91, 117), "int16", "SPL", -47, 833),
        ("headneck/imagesTr/pt_100_0000.nii.gz", (1, 128, 128, 128), "int16", "IPL", -1000, 3095),
        ("hippocampus/imagesTr/hippocampus_001.nii.gz", (1, 35, 51, 35), "uint8", "SAR", 2, 139),
        (
            "hippocampus/imagesTr/hippocampus_003.nii.gz",
            (1, 35, 52, 34),
            "float32",
            "SAR",
            0,
            2776.8801,
        ),
        ("dicom_ct/straight", (1, 20, 512, 512), "int16", "SPL", -1024, 1839),
        ("dicom_ct/three_slices", (1, 3, 512, 512), "int32", "SPL", -3024, 1381),
    ],
)
def test_an_image_is_read_with_grid_and_type(
    real_data, name, shape, dtype, orientation, lowest, highest
):
    volume = read_volume(real_data / name)
    assert volume.array.shape == shape == (len(volume.array), *volume.geometry.shape)
    assert volume.array.dtype == dtype
    assert volume.geometry.orientation == orientation
    np.testing.assert_allclose(
        [volume.array.min(), volume.array.max()], [lowest, highest], rtol=1e-6
    )
    assert is_image(real_data / name)


@pytest.mark.parametrize(
    "name",
    [
        "odd_files/big.nii.gz",
        "odd_files/functional.nii",
        "odd_files/example4d.nii.gz",
        "odd_files/trailing_axis_labels.nii.gz",
        "torso_ct/example_ct.nii.gz",
        "headneck/imagesTr/pt_1_0000.nii.gz",
        "hippocampus/imagesTr/hippocampus_003.nii.gz",
        "two_readers/oncologist/Mandible.nrrd",
    ],
)
def test_simpleitk_agrees_on_voxels_and_places(real_data, name):
    volume, image = read_volume(real_data / name), sitk.ReadImage(str(real_data / name))
    np.testing.assert_allclose(volume.array.squeeze(), sitk.GetArrayFromImage(image), rtol=1e-6)
    last = tuple(size - 1 for size in volume.geometry.shape)
    for index in ((0, 0, 0), last):
        world = image.TransformIndexToPhysicalPoint(
            (*index[::-1], *[0] * (image.GetDimension() - 3))
        )
        np.testing.assert_allclose((volume.geometry.affine @ (*index, 1))[:3], world[:3], atol=2e-3)


def test_both_byte_orders_hold_the_same_image(real_data):
    big, little = (
        read_volume(real_data / "odd_files" / f"{name}.nii.gz") for name in ("big", "little")
    )
    np.testing.assert_array_equal(big.array, little.array)
    assert geometry_mismatch(big.geometry, little.geometry) is None


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("odd_files/5D_small.nii", "has 5 dimensions (1×2×3×1×3), expected 3 or 4"),
        ("odd_files/nifti1.hdr", "is a header without its image nifti1.img"),
        ("odd_files/not-nifti.nii", "is not a NIfTI file"),
        ("odd_files/rgb_test_file.nii.gz", "is a colour (RGB) image"),
        ("odd_files/missing.nii", "does not exist"),
        ("dicom_ct/liver.dcm", "is a single DICOM file"),
        (
            "dicom_ct/tilted_uneven",
            "has unevenly spaced slices (gaps from 1.081 to 6.999 mm)",
        ),
        ("odd_files", "is a folder without a DICOM series"),
    ],
)
@pytest.mark.parametrize("read", [read_volume, read_labels])
def test_an_irregular_volume_is_refused(real_data, read, name, cause):
    assert refused(read, real_data / name) == cause


def test_a_dicom_segmentation_is_named_as_such(real_data):
    with pytest.raises(FseftError, match="is a DICOM-SEG, not an image") as caught:
        read_volume(real_data / "dicom_ct")
    assert str(caught.value.file).endswith("liver.dcm")


def test_missing_voxels_and_surplus_frames_are_counted(real_data):
    odd = real_data / "odd_files"
    cause = "contains 153 voxels of NaN or infinity among 1071"
    assert refused(read_volume, odd / "resampled_anat_moved.nii") == cause
    cause = "has 20 frames (4D), expected 1 channel"
    assert refused(read_volume, odd / "functional.nii", channels=1) == cause


@pytest.mark.parametrize(
    ("name", "dtype", "count"),
    [
        ("odd_files/trailing_axis_labels.nii.gz", "uint16", None),
        ("torso_ct/example_seg.nii.gz", "uint8", None),
        ("headneck/labelsTr/pt_1.nii.gz", "uint8", 8),
        ("hippocampus/labelsTr/hippocampus_001.nii.gz", "uint8", 3),
        ("two_readers/radiographer/Mandible.nrrd", "uint8", 2),
        ("dicom_ct/liver_seg.nrrd", "uint8", 2),
    ],
)
def test_labels_survive_writing_with_their_grid(real_data, tmp_path, name, dtype, count):
    labels = read_labels(real_data / name)
    assert labels.array.dtype == dtype
    assert count is None or len(np.unique(labels.array)) <= count
    for suffix in (".nii.gz", ".nrrd", ".mha"):
        write_labels(tmp_path / f"a{suffix}", labels.array[0], labels.geometry)
        back = read_labels(tmp_path / f"a{suffix}")
        np.testing.assert_array_equal(back.array, labels.array)
        np.testing.assert_allclose(back.geometry.affine, labels.geometry.affine, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("odd_files/functional.nii", "has 20 channels, expected one label map"),
        ("torso_ct/example_ct_sm.nii.gz", "contains negative labels (lowest -1100)"),
        (
            "odd_files/little.nii.gz",
            "contains 17808 non-integer voxels (e.g. -0.021901214495301247)",
        ),
    ],
)
def test_images_are_refused_as_labels(real_data, name, cause):
    assert refused(read_labels, real_data / name) == cause


def test_a_series_and_its_labels_share_the_grid_once_oriented_alike(real_data):
    image = read_volume(real_data / "dicom_ct" / "straight")
    labels = read_labels(real_data / "dicom_ct" / "straight_labels.nii.gz")
    assert image.geometry.spacing_mm == pytest.approx(
        (2, 0.9765625, 0.9765625)
    )  # the thickness is 3
    turned, where = reorient(labels.array, labels.geometry, image.geometry.orientation)
    assert geometry_mismatch(where, image.geometry) is None
    # Labelled tissue is neither air nor outside the patient.
    assert np.median(image.array[turned > 0]) > -200


def test_the_slices_of_a_segmentation_match_their_series(real_data):
    image = read_volume(real_data / "dicom_ct" / "three_slices")
    labels = read_labels(real_data / "dicom_ct" / "liver_seg.nrrd")
    assert geometry_mismatch(labels.geometry, image.geometry) is None


def test_two_readers_drew_on_one_grid(real_data):
    one, two = (
        read_labels(real_data / "two_readers" / reader / "Mandible.nrrd")
        for reader in ("oncologist", "radiographer")
    )
    assert geometry_mismatch(one.geometry, two.geometry) is None
    dice = 2 * (one.array & two.array).sum() / (one.array.sum() + two.array.sum())
    assert dice == pytest.approx(0.956, abs=0.001)
    assert np.prod(bounding_box(one.array).shape) < one.array.size / 10


def test_reading_says_nothing_on_stderr(real_data, capfd):
    for name in ("odd_files/big.nii.gz", "dicom_ct/straight", "dicom_ct/liver_seg.nrrd"):
        read_volume(real_data / name)
    assert capfd.readouterr().err == ""


def test_a_series_has_a_separate_digest(real_data):
    digests = {
        content_digest(real_data / "dicom_ct" / name) for name in ("straight", "three_slices")
    }
    assert len(digests) == 2
