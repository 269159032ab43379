"""TotalSegmentator: a folder per case, with one mask per structure."""

from __future__ import annotations

import pytest

from fseft.errors import FseftError
from fseft.planning.dataset_reading import read_dataset


def a_case(folder, name, masks, image="ct.nii.gz"):
    (folder / name / "segmentations").mkdir(parents=True)
    (folder / name / image).touch()
    for mask in masks:
        (folder / name / "segmentations" / f"{mask}.nii.gz").touch()


def test_structures_are_called_after_their_masks(tmp_path):
    a_case(tmp_path, "s0001", ["liver", "aorta"])
    a_case(tmp_path, "s0000", ["aorta", "liver"])
    (tmp_path / "meta.csv").touch()
    dataset = read_dataset(tmp_path)
    assert (dataset.reader, dataset.channels, dataset.warnings) == ("masks", ("CT",), ())
    assert dataset.labels == {"aorta": 1, "liver": 2}
    assert [case.name for case in dataset.cases] == ["s0000", "s0001"]
    masks = tmp_path / "s0000" / "segmentations"
    assert dataset.cases[0].label == {1: masks / "aorta.nii.gz", 2: masks / "liver.nii.gz"}
    assert dataset.labelled == dataset.cases


def test_a_mask_that_only_some_cases_have_is_reported(tmp_path):
    a_case(tmp_path, "s0000", ["aorta", "liver"])
    a_case(tmp_path, "s0001", ["liver"])
    a_case(tmp_path, "s0002", [])
    dataset = read_dataset(tmp_path)
    assert dataset.cases[1].label == {2: tmp_path / "s0001" / "segmentations" / "liver.nii.gz"}
    assert dataset.cases[2].label is None
    told = (
        "1 case without the mask of some structure (s0001, ...): it counts as not annotated there"
    )
    assert dataset.warnings[0] == told


def test_magnetic_resonance_is_recognised_by_the_file(tmp_path):
    a_case(tmp_path, "s0000", ["aorta"], image="mri.nii.gz")
    assert read_dataset(tmp_path).channels == ("MR",)


def test_a_mixture_of_modalities_is_refused(tmp_path):
    a_case(tmp_path, "s0000", ["aorta"], image="mri.nii.gz")
    a_case(tmp_path, "s0001", ["aorta"])
    with pytest.raises(FseftError, match=r"contains CT and MR\. Make a dataset of each"):
        read_dataset(tmp_path)
