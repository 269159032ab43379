"""`fseft start` describes a folder of scans, and what it proposes is runnable."""

from __future__ import annotations

import json
import shutil

import pytest

from fseft import api
from fseft.planning import dataset_description
from tests.cli.conftest import refused
from tests.sample_data import write_dataset


@pytest.fixture
def scans(tmp_path):
    """Two labelled CTs in the folders `images` and `masks`, and one without a label."""
    source = write_dataset(tmp_path / "source", cases=("a", "b", "c"))
    for kind, name in (("imagesTr", "images"), ("labelsTr", "masks")):
        (tmp_path / "scans" / name).mkdir(parents=True)
        for path in (source / kind).iterdir():
            shutil.copy(path, tmp_path / "scans" / name / path.name.replace("_0000", ""))
    (tmp_path / "scans" / "masks" / "c.nii.gz").unlink()
    return tmp_path / "scans"


def test_a_folder_of_scans_becomes_a_dataset(fseft, scans):
    ended = fseft("start", "scans", "--labels", "1=left kidney,7=tumour", "--yes")
    assert ended.status == 0, ended.err
    dataset = api.read_dataset(scans, strict=False)
    assert (dataset.reader, dataset.channels) == ("nnunet", ("CT",))
    assert dataset.labels == {"left kidney": 1, "tumour": 7}
    assert [case.name for case in dataset.labelled] == ["a", "b"]
    assert "  left kidney: in 2 cases" in ended.out
    assert "  fseft adapt scans -o scans-adapter" in ended.out.splitlines()


def test_a_proposal_is_only_written_on_confirmation(fseft, scans):
    ended = fseft("start", "scans", "--modality", "mr")
    assert ended.status == 0
    assert "pass --yes to write it" in ended.err
    assert not (scans / "dataset.json").exists()
    shown = json.loads(fseft("start", "scans", "--json").out)
    assert shown["written"] is False
    assert shown["content"]["labels"] == {"background": 0, "class_1": 1, "class_7": 7}


def test_scans_are_not_read_where_their_names_contain_the_modality(tmp_path, monkeypatch):
    def unreadable(*_, **__):
        raise AssertionError("a scan was read")

    monkeypatch.setattr(dataset_description, "read_volume", unreadable)
    source = write_dataset(tmp_path / "source", cases=("a",))
    (tmp_path / "P1").mkdir()
    for name in ("t1", "t2"):
        shutil.copy(source / "imagesTr" / "a_0000.nii.gz", tmp_path / "P1" / f"{name}.nii.gz")
    shutil.copy(source / "labelsTr" / "a.nii.gz", tmp_path / "P1" / "mask.nii.gz")
    shutil.rmtree(source)
    description = dataset_description.describe_dataset(tmp_path)
    assert description.modality_reason == "by the channel names t1, t2"


def test_a_described_dataset_needs_no_proposal(fseft, tmp_path):
    write_dataset(tmp_path / "livers")
    ended = fseft("start", "livers")
    assert ended.status == 0
    assert ended.out.splitlines()[0] == "Next:"


def test_bare_folders_are_named_without_a_list_of_files(fseft, tmp_path):
    folder = write_dataset(tmp_path / "livers")
    (folder / "dataset.json").unlink()
    assert fseft("start", "livers", "--labels", "1=kidney,7=tumour", "--yes").status == 0
    assert "dataset" not in json.loads((folder / "dataset.json").read_text())
    assert api.read_dataset(folder).labels == {"kidney": 1, "tumour": 7}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--labels", "2=liver"), ("no label has the value 2 (liver)", "present: 1, 7")),
        (("--labels", "liver"), ("--labels 'liver'", "1=liver,3=spleen")),
        (("--labels", "1=a,7=a"), ("expected value=name",)),
    ],
)
def test_wrong_names_are_refused(fseft, scans, options, words):
    refused(fseft("start", str(scans), *options), words)


def test_a_described_dataset_is_not_renamed(fseft, tmp_path):
    write_dataset(tmp_path / "livers")
    words = ("is described already", "'nnunet'", "Change its dataset.json")
    refused(fseft("start", "livers", "--labels", "1=a"), words)
