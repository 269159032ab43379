"""Cleaning removes what no dataset and no process uses, and nothing else."""

from __future__ import annotations

from pathlib import Path

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
    with in_use(features):
        write_text(features / "a.txt", "")
    with in_use(folder):
        assert api.clean(workspace=workspace, everything=True) == [features]
    assert api.clean(workspace=workspace, everything=True) == [folder]
    assert api.clean(workspace=workspace, everything=True) == []


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text("{")])
def test_cases_without_a_fingerprint_to_compare_stay(blobs, workspace, damage, caplog):
    cases = set(preprocess(blobs, workspace).folder.iterdir())
    damage(workspace.fingerprint("blobs"))
    assert api.clean(workspace=workspace) == []
    assert "blobs: its preprocessed cases are kept" in caplog.text
    assert all(case.exists() for case in cases)


def test_files_of_another_program_stay(blobs, workspace):
    """The workspace may be a folder with other content."""
    scan = workspace.root / "preprocessed" / "study" / "scans" / "a" / "scan.txt"
    notes = preprocess(blobs, workspace).folder / "notes" / "a.txt"
    measurements = workspace.fingerprint("blobs").parent / "cases" / "mine.npz"
    for file in (scan, notes, measurements):
        write_text(file, "")
    (blobs / "imagesTr" / "a_0000.nii.gz").write_bytes(
        (blobs / "imagesTr" / "b_0000.nii.gz").read_bytes()
    )
    preprocess(blobs, workspace)
    api.clean(workspace=workspace)
    assert scan.is_file()
    assert notes.is_file()
    assert measurements.is_file()
    api.clean(workspace=workspace, everything=True)
    assert scan.is_file()
