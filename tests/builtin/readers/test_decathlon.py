"""Medical Segmentation Decathlon: `dataset.json` lists the cases."""

from __future__ import annotations

import json
import unicodedata

import pytest

from fseft.builtin.readers.decathlon import Reader
from fseft.builtin.readers.folders import MEANINGS
from fseft.errors import FseftError


def pair(name):
    return {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"}


def a_dataset(folder, *, training=("a", "b"), **changed):
    declared = {
        "modality": {"0": "FLAIR", "1": "T1w"},
        "labels": {"0": "background", "1": "edema", "4": "tumour"},
        "training": [pair(entry) if isinstance(entry, str) else entry for entry in training],
    }
    (folder / "dataset.json").write_text(json.dumps(declared | changed))
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir()
        for name in ("a", "b", "._a"):
            (folder / kind / f"{name}.nii.gz").touch()
    return folder


def test_channels_labels_and_cases_are_read(tmp_path):
    folder = a_dataset(tmp_path)
    dataset = Reader().read(folder)
    assert Reader().detects(folder)
    assert dataset.channels == ("FLAIR", "T1w")
    assert dataset.labels == {"edema": 1, "tumour": 4}
    assert [case.name for case in dataset.cases] == ["a", "b"]
    assert dataset.cases[0].images == (folder / "imagesTr" / "a.nii.gz",)
    assert dataset.cases[1].label == folder / "labelsTr" / "b.nii.gz"


def test_listed_files_that_are_missing_count_as_not_there(tmp_path):
    folder = a_dataset(tmp_path)
    (folder / "imagesTr" / "a.nii.gz").unlink()
    (folder / "labelsTr" / "b.nii.gz").unlink()
    a, b = Reader().read(folder).cases
    assert (a.images, a.label is None) == ((), False)
    assert (len(b.images), b.label) == (1, None)


@pytest.mark.parametrize(
    ("changed", "cause"),
    [
        ({"training": ["a", "a"]}, "case a.*listed twice"),
        ({"training": [{"label": "x.nii.gz"}]}, r"training\.0\.image: is missing"),
        (
            {"training": [{"image": "a.nii.gz", "label": True}]},
            r"training\.0\.label: must be text, got True",
        ),
        ({"training": [3]}, r"training\.0"),
        ({"modality": {"first": "CT"}}, "modality"),
        ({"modality": {}}, "modality"),
        ({"modality": {"0": 1}}, r"modality\.0: must be text, got 1"),
        ({"labels": {"background": 0}}, "background: must be a whole number, got 'background'"),
        ({"labels": {"1": 2}}, "label '1': 2"),
        ({"labels": {"1": "liver", "2": "liver"}}, "'liver', which is not text or occurs twice"),
        ({"labels": {"1": "liver", "1.0": "spleen"}}, "'liver' and 'spleen' have the same value 1"),
    ],
)
def test_what_cannot_be_read_is_refused_and_named(tmp_path, changed, cause):
    with pytest.raises(FseftError, match=cause):
        Reader().read(a_dataset(tmp_path, **changed))


@pytest.mark.parametrize(
    ("task", "labels", "meant"),
    [
        ("Liver", {"1": "liver", "2": "cancer"}, {"cancer": "liver_tumor"}),
        ("Lung", {"1": "cancer"}, {"cancer": "lung_tumor"}),
        ("Pancreas", {"1": "pancreas", "2": "cancer"}, {"cancer": "pancreas_tumor"}),
        (
            "HepaticVessel",
            {"1": "Vessel", "2": "Tumour"},
            MEANINGS["HepaticVessel"],
        ),
        ("btcv", {"1": "rkid", "2": "veins", "3": "rad", "4": "lad"}, MEANINGS["btcv"]),
        ("Spleen", {"1": "spleen"}, {}),
        ("Colon", {"1": "colon cancer primaries"}, {}),
        ("My livers", {"1": "cancer"}, {}),
    ],
)
def test_ambiguous_names_of_the_tasks_have_a_meaning(task, labels, meant, tmp_path):
    folder = a_dataset(tmp_path, name=task, labels={"0": "background", **labels})
    assert Reader().read(folder).meanings == meant


def test_a_dataset_of_the_magnetic_resonance_of_amos_keeps_its_cases(tmp_path):
    folder = a_dataset(tmp_path, modality={"0": "MR"}, training=[pair("amos_0507")])
    (folder / "imagesTr" / "amos_0507.nii.gz").touch()
    dataset = Reader().read(folder)
    assert [case.name for case in dataset.cases] == ["amos_0507"]
    assert dataset.warnings == ()


def test_a_list_that_was_written_on_windows_is_read(tmp_path):
    entries = [
        {"image": ".\\imagesTr\\a.nii.gz", "label": ".\\labelsTr\\a.nii.gz"},
        {"image": "imagesTr\\b.nii.gz"},
    ]
    first, second = Reader().read(a_dataset(tmp_path, training=entries)).cases
    assert (first.name, first.label) == ("a", tmp_path / "labelsTr" / "a.nii.gz")
    assert (second.name, second.label) == ("b", None)


@pytest.mark.parametrize(("listed", "stored"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_composed_and_decomposed_names_are_the_same(tmp_path, listed, stored):
    name = unicodedata.normalize(listed, "étude")
    folder = a_dataset(tmp_path, training=[pair(name)])
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind / f"{unicodedata.normalize(stored, 'étude')}.nii.gz").touch()
    (case,) = Reader().read(folder).cases
    assert case.name == "étude"
    assert case.images
    assert case.label


def test_a_list_of_files_of_another_machine_is_refused_with_its_first_path(tmp_path):
    entry = {"image": "/home/someone/imagesTr/a.nii.gz", "label": "/home/someone/a.nii.gz"}
    with pytest.raises(FseftError, match=r"lists 1 image, none of which exists .*/home/someone"):
        Reader().read(a_dataset(tmp_path, training=[entry]))


def test_amos_is_read_by_its_declaration(tmp_path):
    names = ["spleen", "right kidney", "gall bladder", "arota", "prostate/uterus"]
    labels = {"0": "background", **{str(value): name for value, name in enumerate(names, start=1)}}
    (tmp_path / "dataset.json").write_text(
        json.dumps(
            {
                "modality": {"0": "CT"},
                "labels": labels,
                "training": [pair("amos_0001"), pair("amos_0507")],
            }
        )
    )
    for kind in ("imagesTr", "labelsTr", "imagesVa", "labelsVa"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "amos_0001.nii.gz").touch()
    dataset = Reader().read(tmp_path)
    assert [case.name for case in dataset.cases] == ["amos_0001"]
    assert dataset.warnings == (
        "1 case of MR, which AMOS22 lists as CT (amos_0507, ...): excluded; make a separate dataset of them",
    )
    assert dataset.labels == {name: value for value, name in enumerate(names, start=1)}
