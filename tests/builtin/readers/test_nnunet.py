"""nnU-Net v2 datasets: `dataset.json` names channels and structures."""

from __future__ import annotations

import json

import pytest

from fseft.builtin.readers.nnunet import Reader
from fseft.errors import FseftError

DECLARED = {
    "channel_names": {"0": "CT", "1": "PET"},
    "labels": {"background": 0, "liver": 1, "tumour": 7},
    "file_ending": ".nii.gz",
}


def a_dataset(
    folder, declared=DECLARED, images=("a_0000.nii.gz", "a_0001.nii.gz"), labels=("a.nii.gz",)
):
    (folder / "dataset.json").write_text(
        declared if isinstance(declared, str) else json.dumps(declared)
    )
    for kind, names in (("imagesTr", images), ("labelsTr", labels)):
        (folder / kind).mkdir()
        for name in names:
            (folder / kind / name).touch()
    return folder


def test_channels_labels_and_cases_are_read(tmp_path):
    folder = a_dataset(tmp_path)
    dataset = Reader().read(folder)
    assert Reader().detects(folder)
    assert dataset.channels == ("CT", "PET")
    assert dataset.labels == {"liver": 1, "tumour": 7}
    (case,) = dataset.cases
    assert case.name == "a"
    assert [path.name for path in case.images] == ["a_0000.nii.gz", "a_0001.nii.gz"]
    assert case.label == folder / "labelsTr" / "a.nii.gz"


def test_only_files_with_the_declared_ending_count(tmp_path):
    images = ("a_0000.nii.gz", "a_0001.nii.gz", "._a_0000.nii.gz", "b_0000.nrrd", "plain.nii.gz")
    assert [case.name for case in Reader().read(a_dataset(tmp_path, images=images)).cases] == ["a"]


def test_images_that_all_have_another_ending_than_declared_are_named(tmp_path):
    folder = a_dataset(tmp_path, images=("a_0000.nrrd",))
    with pytest.raises(
        FseftError, match=r"file_ending '\.nii\.gz'.*imagesTr contains a_0000\.nrrd"
    ):
        Reader().read(folder)


@pytest.mark.parametrize(
    ("changed", "cause"),
    [
        ({"labels": {"background": 0, "whole": [1, 2]}}, "regions_class_order"),
        (
            {"labels": {"whole": [1, 2], "core": [2]}, "regions_class_order": [1]},
            "2 regions, and 1",
        ),
        (
            {"labels": {"whole": [1, 2], "core": [2]}, "regions_class_order": [2, 1]},
            r"'core' \(2\) with the value 1",
        ),
        (
            {"labels": {"whole": [1, 2], "core": [2]}, "regions_class_order": [2, 2]},
            "have the same value 2",
        ),
        (
            {"labels": {"whole": [1, 2], "core": ["x"]}, "regions_class_order": [1, 2]},
            "core.*got 'x'",
        ),
        (
            {"labels": {"whole": [1, 2], "ignore": 2}, "regions_class_order": [1]},
            "the ignore label 2 is a value of a region",
        ),
        ({"labels": {"background": 0, "liver": 1, "ignore": 1}}, "have the same value 1"),
        ({"labels": {"background": 0, "liver": 1, "ignore": 0}}, "0 is the value of the backgr"),
        ({"labels": {"background": 4, "liver": 4, "ignore": 0}}, "have the same value 4"),
        ({"labels": {"background": 0, "liver": 1, "ignore": -1}}, "ignore: .*got -1"),
        ({"labels": {"liver": "one"}}, "liver: must be a whole number, got 'one'"),
        ({"labels": {"liver": True}}, "liver: it is not a number, got True"),
        ({"labels": {"liver": 1.5}}, r"liver: .*got 1\.5"),
        ({"labels": {"liver": -1}}, "liver: .*got -1"),
        ({"labels": {"liver": 1e300}}, "liver: .*got 1e"),
        ({"labels": {"liver": 1, "spleen": 1}}, "'liver' and 'spleen' have the same value 1"),
        ({"labels": None}, "labels: .*got None"),
        ({"file_ending": 3}, "file_ending: must be text, got 3"),
        ({"channel_names": ["CT"]}, "channel_names"),
        ({"channel_names": {"0": None}}, r"channel_names\.0: must be text, got None"),
        ({"channel_names": {"1": "CT"}}, "not numbered from 0"),
        ({"channel_names": {}}, "not numbered from 0"),
    ],
)
def test_what_cannot_be_read_is_refused_and_named(tmp_path, changed, cause):
    with pytest.raises(FseftError, match=cause):
        Reader().read(a_dataset(tmp_path, {**DECLARED, **changed}))


@pytest.mark.parametrize("value", [1, 1.0, "1", "1.0"])
def test_a_whole_number_may_be_written_in_any_form(tmp_path, value):
    folder = a_dataset(tmp_path, {**DECLARED, "labels": {"background": 0, "liver": value}})
    assert Reader().read(folder).labels == {"liver": 1}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_a_dataset_json_that_windows_has_encoded_is_read(tmp_path, encoding):
    folder = a_dataset(tmp_path)
    (folder / "dataset.json").write_bytes(json.dumps(DECLARED).encode(encoding))
    assert Reader().detects(folder)
    assert Reader().read(folder).labels == {"liver": 1, "tumour": 7}


CT_ONLY = {**DECLARED, "channel_names": {"0": "CT"}}


def test_capital_letters_in_a_suffix_do_not_matter(tmp_path):
    images, labels = ("a_0000.NII.GZ", "b_0000.nii.gz"), ("a.NII.GZ", "b.nii.gz")
    cases = Reader().read(a_dataset(tmp_path, CT_ONLY, images, labels)).cases
    assert [(case.name, bool(case.label)) for case in cases] == [("a", True), ("b", True)]


def test_a_single_channel_needs_no_number_in_any_case(tmp_path):
    images, labels = ("a_0000.nii.gz", "b.nii.gz"), ("a.nii.gz", "b.nii.gz")
    cases = Reader().read(a_dataset(tmp_path, CT_ONLY, images, labels)).cases
    assert [len(case.images) for case in cases] == [1, 1]


LISTED = {
    "one": {"images": ["imagesTr/a_0000.nii.gz", "imagesTr\\a_0001.nii.gz"]},
    "two": {"images": ["../x.nii.gz", "../y.nii.gz"], "label": "labelsTr/a.nii.gz"},
}


def test_a_list_of_cases_goes_before_the_folders(tmp_path):
    (tmp_path / "d").mkdir()
    for name in "xy":
        (tmp_path / f"{name}.nii.gz").touch()
    one, two = Reader().read(a_dataset(tmp_path / "d", {**DECLARED, "dataset": LISTED})).cases
    assert (one.name, len(one.images), one.label) == ("one", 2, None)
    assert [path.name for path in two.images] == ["x.nii.gz", "y.nii.gz"]
    assert two.label.is_file()


def test_a_list_of_missing_images_is_refused_with_the_first(tmp_path):
    listed = {"a": {"images": ["/gone/a_0000.nii.gz", "/gone/a_0001.nii.gz"]}}
    with pytest.raises(FseftError, match=r"lists 2 images, none of which exists .*/gone/a_0000"):
        Reader().read(a_dataset(tmp_path, {**DECLARED, "dataset": listed}))


@pytest.mark.parametrize("images", [("a_0001.nii.gz",), ("a_0000.nii.gz",)])
def test_a_case_that_lacks_a_channel_is_refused(tmp_path, images):
    with pytest.raises(FseftError, match="case a"):
        Reader().read(a_dataset(tmp_path, images=images))


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_broken_dataset_json_is_refused(tmp_path, text):
    with pytest.raises(FseftError, match=r"dataset\.json.*JSON"):
        Reader().detects(a_dataset(tmp_path, text))
