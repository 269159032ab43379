"""CHAOS: series in DICOM, labels as one picture per slice."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  the name that everybody gives it

from fseft.builtin.readers.chaos import Reader
from fseft.errors import FseftError
from fseft.planning.dataset_reading import read_dataset
from fseft.volume.case_files import read_case, read_case_labels
from fseft.volume.fingerprint import measure_case


def a_series(folder, positions):
    """Slices whose names count up along the list of their positions; each holds its position."""
    folder.mkdir(parents=True)
    for number, position in enumerate(positions):
        image = sitk.GetImageFromArray(
            np.arange(12, dtype=np.int16).reshape(1, 3, 4) + 100 * int(position)
        )
        values = {
            "0008|0060": "CT",
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0020|000d": "1.2",
            "0020|000e": "1.2.3",
        }
        values |= {"0020|0032": f"0\\0\\{position}", "0020|0037": "1\\0\\0\\0\\1\\0"}
        for key, value in values.items():
            image.SetMetaData(key, value)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(folder / f"i{number:04},0000b.dcm"))
        writer.Execute(image)


def pictures(folder, greys, size=(3, 4)):
    """One picture per slice, with one bright pixel."""
    folder.mkdir(parents=True)
    for number, grey in enumerate(greys):
        label = np.zeros(size, np.uint8)
        label[0, 1] = grey
        sitk.WriteImage(sitk.GetImageFromArray(label), str(folder / f"liver_GT_{number:03}.png"))


@pytest.mark.parametrize("positions", [(0, 3, 6), (6, 3, 0)])
def test_a_picture_belongs_to_the_slice_of_the_same_number_in_the_order_of_names(
    tmp_path, positions
):
    a_series(tmp_path / "CT" / "1" / "DICOM_anon", positions)
    pictures(tmp_path / "CT" / "1" / "Ground", (255, 0, 0))
    dataset = read_dataset(tmp_path / "CT")
    (case,) = dataset.cases
    assert (dataset.reader, dataset.channels, dataset.labels, case.name) == (
        "chaos",
        ("CT",),
        {"liver": 255},
        "1",
    )
    image = read_case(case, dataset.channels)
    labels = read_case_labels(case, image)
    ((_, z, y, x),) = np.argwhere(labels.array == 255)
    assert (y, x) == (0, 1)
    assert image.array[0, z, 0, 0] == 100 * positions[0]
    assert set(
        measure_case(case, channels=("CT",), labels=dataset.labels, body=False).volumes_mm3
    ) == {255}


def test_each_sequence_of_magnetic_resonance_is_a_case(tmp_path):
    for series in ("T1DUAL/DICOM_anon/InPhase", "T1DUAL/DICOM_anon/OutPhase", "T2SPIR/DICOM_anon"):
        (tmp_path / "1" / series).mkdir(parents=True)
    for ground in ("T1DUAL/Ground", "T2SPIR/Ground"):
        (tmp_path / "1" / ground).mkdir()
    dataset = Reader().read(tmp_path)
    assert [case.name for case in dataset.cases] == ["1_T1DUAL", "1_T2SPIR"]
    assert dataset.channels == ("MR",)
    assert dataset.labels == {"liver": 63, "kidney_right": 126, "kidney_left": 189, "spleen": 252}


@pytest.mark.parametrize(
    ("greys", "size", "message"),
    [
        ((255, 0), (3, 4), "case 1.*Ground: contains 2 PNG files, its series 3 slices"),
        (
            (255, 0, 0),
            (4, 4),
            r"case 1.*liver_GT_000.png: has the shape \(4, 4\), its slice \(3, 4\)",
        ),
    ],
)
def test_pictures_that_do_not_fit_are_refused(greys, size, message, tmp_path):
    a_series(tmp_path / "1" / "DICOM_anon", (0, 3, 6))
    pictures(tmp_path / "1" / "Ground", greys, size)
    (case,) = Reader().read(tmp_path).cases
    with pytest.raises(FseftError, match=message):
        read_case_labels(case, read_case(case, ("CT",)))


def test_a_mixture_of_modalities_is_refused(tmp_path):
    (tmp_path / "1" / "DICOM_anon").mkdir(parents=True)
    (tmp_path / "2" / "T2SPIR" / "DICOM_anon").mkdir(parents=True)
    with pytest.raises(FseftError, match="contains CT and MR"):
        Reader().read(tmp_path)
