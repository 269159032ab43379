"""Every reader keeps the contract that authors of plugins are given."""

from __future__ import annotations

import json

import pytest

from fseft.registry import registry
from fseft.testing import reader_checks

IMAGES = ("b_0000.nii.gz", "a_0000.nii.gz")
LABELS = ("b.nii.gz",)
DECLARATIONS = {
    "decathlon": {
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "liver"},
        "training": [
            {"image": "./imagesTr/b_0000.nii.gz", "label": "./labelsTr/b.nii.gz"},
            "imagesTr/a_0000.nii.gz",
        ],
    },
    "folders": None,
    "nnunet": {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "liver": 1},
        "file_ending": ".nii.gz",
    },
}


OTHERS = {
    "chaos": ("2/DICOM_anon/i0000.dcm", "2/Ground/liver_GT_000.png", "1/DICOM_anon/i0000.dcm"),
    "challenges": ("img/img0002.nii.gz", "img/img0001.nii.gz", "label/label0002.nii.gz"),
    "masks": (
        *(
            "s0001/ct.nii.gz",
            "s0001/segmentations/liver.nii.gz",
            "s0001/segmentations/aorta.nii.gz",
        ),
        *("s0000/ct.nii.gz", "s0000/segmentations/liver.nii.gz"),
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_reader_of_public_files_keeps_the_contract(name, tmp_path):
    for file in OTHERS[name]:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    for parameter in reader_checks(name, tmp_path):
        (check,) = parameter.values
        check()


@pytest.mark.parametrize("name", DECLARATIONS)
def test_a_reader_keeps_the_contract(name, tmp_path):
    for kind, files in (("imagesTr", IMAGES), ("labelsTr", LABELS)):
        (tmp_path / kind).mkdir()
        for file in files:
            (tmp_path / kind / file).touch()
    if declared := DECLARATIONS[name]:
        (tmp_path / "dataset.json").write_text(json.dumps(declared))
    for parameter in reader_checks(name, tmp_path):
        (check,) = parameter.values
        check()


def test_every_reader_is_tested():
    assert DECLARATIONS.keys() | OTHERS.keys() == set(registry().names("reader"))
