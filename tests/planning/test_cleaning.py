"""Cleaning removes what no dataset and no process uses, and nothing else."""

from __future__ import annotations

import pytest

from fseft import api
from fseft.temporaries import in_use
from fseft.workspace import Workspace, write_text
from tests.sample_data import write_dataset


@pytest.fixture
def blobs(tmp_path):
    return write_dataset(tmp_path / "blobs", cases=("a", "b"))


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "workspace")


def preprocess(blobs, workspace):
    return api.preprocess(blobs, "none", device="cpu", workspace=workspace)


def test_cases_of_current_files_stay(blobs, workspace):
    preprocess(blobs, workspace)
    assert api.clean(workspace=workspace) == []
    assert preprocess(blobs, workspace).skipped == ("a", "b")


def test_cases_of_former_files_and_versions_are_removed(blobs, workspace):
    folder = preprocess(blobs, workspace).folder
    former = next(folder.glob("a-*"))
    write_text(folder / "a" / "case.json", "{}")
    (blobs / "imagesTr" / "a_0000.nii.gz").write_bytes(
        (blobs / "imagesTr" / "b_0000.nii.gz").read_bytes()
    )
    preprocess(blobs, workspace)
    assert api.clean(workspace=workspace) == [folder / "a", former]
    assert preprocess(blobs, workspace).skipped == ("a", "b")


def test_everything_is_removed_except_what_is_used(blobs, workspace):
    folder = preprocess(blobs, workspace).folder
    features = workspace.features("blobs", "0123")
    write_text(features / "a.txt", "")
    with in_use(folder):
        assert api.clean(workspace=workspace, everything=True) == [features]
    assert api.clean(workspace=workspace, everything=True) == [folder]
    assert api.clean(workspace=workspace, everything=True) == []
