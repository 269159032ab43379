"""Images and labels of any layout meet by their names."""

from __future__ import annotations

import pytest

from fseft.errors import FseftError
from fseft.planning.file_pairing import pair_files

LAYOUTS = {
    "two folders": (
        ("images/a.nii.gz", "labels/a.nii.gz", "images/b.nii.gz"),
        {"a": (["images/a.nii.gz"], "labels/a.nii.gz"), "b": (["images/b.nii.gz"], None)},
    ),
    "a suffix": (
        ("A.nii.gz", "A_seg.nii.gz", "B.nii", "B-label.nii"),
        {"A": (["A.nii.gz"], "A_seg.nii.gz"), "B": (["B.nii"], "B-label.nii")},
    ),
    "segmentations of Slicer": (
        ("a.nrrd", "a.seg.nrrd"),
        {"a": (["a.nrrd"], "a.seg.nrrd")},
    ),
    "a numbered prefix": (
        ("img01.nii.gz", "label01.nii.gz"),
        {"img01": (["img01.nii.gz"], "label01.nii.gz")},
    ),
    "a folder per case": (
        ("p1/image.nii.gz", "p1/label.nii.gz", "p2/image.nii.gz"),
        {"p1": (["p1/image.nii.gz"], "p1/label.nii.gz"), "p2": (["p2/image.nii.gz"], None)},
    ),
    "channels in a folder per case": (
        ("P1/t1.nii.gz", "P1/t2.nii.gz", "P1/mask.nii.gz"),
        {"P1": (["P1/t1.nii.gz", "P1/t2.nii.gz"], "P1/mask.nii.gz")},
    ),
    "channels with the name of the case": (
        ("x/x_t1.nii.gz", "x/x_flair.nii.gz", "x/x_seg.nii.gz"),
        {"x": (["x/x_flair.nii.gz", "x/x_t1.nii.gz"], "x/x_seg.nii.gz")},
    ),
    "channel numbers": (
        ("imagesTr/h_01_0000.nii", "imagesTr/h_01_0001.nii", "labelsTr/h_01.nii"),
        {"h_01": (["imagesTr/h_01_0000.nii", "imagesTr/h_01_0001.nii"], "labelsTr/h_01.nii")},
    ),
    "equal names in several folders": (
        ("ana/scan.nii", "ana/mask.nii", "ben/scan.nii", "ben/mask.nii"),
        {"ana": (["ana/scan.nii"], "ana/mask.nii"), "ben": (["ben/scan.nii"], "ben/mask.nii")},
    ),
    "hidden files": ((".b.nii", "a.nii", ".git/c.nii"), {"a": (["a.nii"], None)}),
}


def create(folder, files):
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_and_labels_are_paired_by_name(tmp_path, layout):
    files, expected = LAYOUTS[layout]
    create(tmp_path, files)
    cases = {}
    for name, case in pair_files(tmp_path).items():
        images = [path.relative_to(tmp_path).as_posix() for path in case.images.values()]
        cases[name] = images, case.label and case.label.relative_to(tmp_path).as_posix()
    assert cases == expected


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (("a.nii", "a_seg.nii", "a_mask.nii"), "a_mask.nii is another label of this case"),
        (("a.mhd", "b.mhd"), "but 2 others (such as"),
        (("notes.txt",), "has no image"),
        (("labels/a.nii",), "has no image"),
    ],
)
def test_files_that_cannot_be_paired_are_named(tmp_path, files, words):
    create(tmp_path, files)
    with pytest.raises(FseftError) as error:
        pair_files(tmp_path)
    assert words in str(error.value)
