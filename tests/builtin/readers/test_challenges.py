"""Public datasets are known by the names of their files, wherever their owners put them."""

from __future__ import annotations

import pytest

from fseft.builtin.readers.challenges import LAYOUTS, Reader
from fseft.errors import FseftError
from fseft.planning.dataset_reading import read_dataset

TREES = {
    "BTCV": (("img/img0001.nii.gz", "label/label0001.nii.gz"), "0001", 13),
    "FLARE22": (
        ("images/FLARE22_Tr_0001_0000.nii.gz", "labels/FLARE22_Tr_0001.nii.gz"),
        "FLARE22_Tr_0001",
        13,
    ),
    "LiTS": (("Training Batch 1/volume-0.nii", "Training Batch 1/segmentation-0.nii"), "0", 2),
    "KiTS": (("case_00000/imaging.nii.gz", "case_00000/segmentation.nii.gz"), "case_00000", 3),
    "KiTS21": (
        ("case_00000/imaging.nii.gz", "case_00000/aggregated_MAJ_seg.nii.gz"),
        "case_00000",
        3,
    ),
    "AbdomenCT-1K": (
        ("AbdomenCT-1K-ImagePart1/Case_00001_0000.nii.gz", "Mask/Case_00001.nii.gz"),
        "Case_00001",
        4,
    ),
    "CT-ORG": (("volume-0.nii.gz", "labels-0.nii.gz"), "0", 6),
    "AbdomenCT-12organ": (
        ("img/Organ12_0001_0000.nii.gz", "label/Organ12_0001.nii.gz"),
        "Organ12_0001",
        12,
    ),
}


def tree(folder, *files):
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    return folder


def test_every_layout_is_tested():
    assert TREES.keys() == {layout.name for layout in LAYOUTS}


@pytest.mark.parametrize("name", TREES)
def test_a_public_dataset_is_read_as_its_owner_gives_it(name, tmp_path):
    (image, label), case, count = TREES[name]
    dataset = read_dataset(tree(tmp_path / "public", image, label))
    assert (dataset.reader, dataset.channels) == ("challenges", ("CT",))
    assert list(dataset.labels.values()) == list(range(1, count + 1))
    (found,) = dataset.cases
    assert (found.name, found.images, found.label) == (
        case,
        (tmp_path / "public" / image,),
        tmp_path / "public" / label,
    )


def test_the_tuning_cases_of_flare22_are_read_too(tmp_path):
    folder = tree(tmp_path, "tuning/FLARETs_0001_0000.nii.gz", "labels/FLARETs_0001.nii.gz")
    assert [case.name for case in Reader().read(folder).cases] == ["FLARETs_0001"]


def test_images_without_a_label_are_listed(tmp_path):
    folder = tree(
        tmp_path, "a/volume-1.nii", "a/segmentation-1.nii", "b/volume-2.nii", "b/.volume-3.nii"
    )
    assert [(case.name, case.label is None) for case in Reader().read(folder).cases] == [
        ("1", False),
        ("2", True),
    ]


def test_an_image_that_is_there_twice_is_refused(tmp_path):
    folder = tree(tmp_path, "a/volume-1.nii", "a/segmentation-1.nii", "b/volume-1.nii")
    with pytest.raises(FseftError, match=r"case 1.*is a duplicate of .*volume-1.nii. Remove one."):
        Reader().read(folder)


@pytest.mark.parametrize(
    "files",
    [
        ("img0001.nii.gz", "label0002.nii.gz"),
        ("volume-0.nii.gz", "segmentation-0.nii.gz"),
        ("imaging.nii.gz", "segmentation.nii.gz"),
        ("images/a_0000.nii.gz", "labels/a.nii.gz"),
        ("dataset.json", "imagesTr/FLARE22_Tr_0001_0000.nii.gz", "labelsTr/FLARE22_Tr_0001.nii.gz"),
    ],
)
def test_what_is_not_surely_one_of_them_is_not_detected(files, tmp_path):
    assert not Reader().detects(tree(tmp_path, *files))
