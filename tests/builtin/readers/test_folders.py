"""Bare folders: cases are found by file names alone."""

from __future__ import annotations

import json

import pytest

from fseft.builtin.readers.folders import Reader
from fseft.errors import FseftError


def a_dataset(folder, images, labels=()):
    for kind, names in (("imagesTr", images), ("labelsTr", labels)):
        (folder / kind).mkdir()
        for name in names:
            (folder / kind / name).touch()
    return folder


def files(dataset):
    return {
        case.name: ([path.name for path in case.images], case.label and case.label.name)
        for case in dataset.cases
    }


def test_images_and_labels_of_the_same_name_are_a_case(tmp_path):
    dataset = Reader().read(a_dataset(tmp_path, ["b.nii.gz", "a.nrrd"], ["a.nii.gz", "b.nii.gz"]))
    assert files(dataset) == {"a": (["a.nrrd"], "a.nii.gz"), "b": (["b.nii.gz"], "b.nii.gz")}
    assert (dataset.channels, dataset.labels) == (("image",), {})


def test_images_numbered_by_channel_are_grouped(tmp_path):
    images = ["a_0000.nii.gz", "a_0001.nii.gz", "b_0000.nii.gz", "b_0001.nii.gz"]
    dataset = Reader().read(a_dataset(tmp_path, images, ["a.nii.gz", "b.nii.gz"]))
    assert files(dataset)["b"] == (["b_0000.nii.gz", "b_0001.nii.gz"], "b.nii.gz")
    assert len(dataset.channels) == 2


@pytest.mark.parametrize(
    ("images", "labels", "cases"),
    [
        (["scan_0001.nii", "scan_0002.nii"], ["scan_0001.nii"], ["scan_0001", "scan_0002"]),
        (["scan_0001.nii", "scan_0002.nii"], [], ["scan_0001", "scan_0002"]),
        (["a_0000.nii", "b_0000.nii"], [], ["a", "b"]),
    ],
)
def test_four_digits_are_a_channel_only_with_such_labels_or_a_channel_0(
    tmp_path, images, labels, cases
):
    assert list(files(Reader().read(a_dataset(tmp_path, images, labels)))) == cases


def test_an_image_without_a_channel_number_is_a_case_among_numbered_ones(tmp_path):
    images = ["a_0000.nii.gz", "b_0000.nii.gz", "c.nii.gz"]
    dataset = Reader().read(a_dataset(tmp_path, images, ["a.nii.gz", "b.nii.gz", "c.nii.gz"]))
    assert files(dataset)["c"] == (["c.nii.gz"], "c.nii.gz")


def test_composed_and_decomposed_names_are_one_case(tmp_path):
    dataset = Reader().read(a_dataset(tmp_path, ["e\u0301tude.nii"], ["\u00e9tude.nii"]))
    assert list(files(dataset)) == ["\u00e9tude"]


def test_hidden_files_and_other_files_are_left_out(tmp_path):
    dataset = Reader().read(
        a_dataset(tmp_path, ["a.nii.gz", "._a.nii.gz", ".b.nii", "notes.txt"], ["a.nii.gz"])
    )
    assert list(files(dataset)) == ["a"]


def test_a_folder_of_dicom_slices_is_an_image(tmp_path):
    a_dataset(tmp_path, [], ["a.nii.gz"])
    for series in ("a", "empty"):
        (tmp_path / "imagesTr" / series).mkdir()
    (tmp_path / "imagesTr" / "a" / "0001").write_bytes(bytes(128) + b"DICM")
    assert files(Reader().read(tmp_path)) == {"a": (["a"], "a.nii.gz")}


def test_what_has_no_partner_is_listed_too(tmp_path):
    dataset = Reader().read(a_dataset(tmp_path, ["a.nii", "b.nii"], ["b.nii", "c.nii"]))
    assert files(dataset) == {"a": (["a.nii"], None), "b": (["b.nii"], "b.nii"), "c": ([], "c.nii")}


def test_two_files_of_one_case_are_refused(tmp_path):
    with pytest.raises(FseftError, match=r"case a.*a\.nrrd.*a\.nii is another image"):
        Reader().read(a_dataset(tmp_path, ["a.nii", "a.nrrd"]))


def test_a_case_that_lacks_a_channel_is_refused(tmp_path):
    images = ["a_0000.nii", "a_0001.nii", "b_0000.nii"]
    with pytest.raises(FseftError, match=r"case b.*has 1 image files, expected 2"):
        Reader().read(a_dataset(tmp_path, images, ["a.nii", "b.nii"]))


def test_a_dataset_json_that_no_reader_accepts_is_reported(tmp_path):
    a_dataset(tmp_path, ["a.nii"])
    (tmp_path / "dataset.json").write_text(json.dumps({"name": "x"}))
    assert Reader().detects(tmp_path)
    assert "dataset.json" in Reader().read(tmp_path).warnings[0]
