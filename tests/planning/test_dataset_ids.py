"""Datasets are found by the ids and names of nnU-Net, where `nnUNet_raw` says where they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from fseft import api
from fseft.errors import FseftError
from fseft.planning.dataset_ids import find_dataset_folder
from fseft.planning.dataset_reading import read_dataset


@pytest.fixture
def raw(tmp_path, monkeypatch):
    folder = tmp_path / "raw"
    for name in ("Dataset002_Heart", "Dataset102_Livers", "Dataset104_A", "Dataset104_B"):
        (folder / name).mkdir(parents=True)
    monkeypatch.setenv("nnUNet_raw", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("2", "Dataset002_Heart"),
        ("002", "Dataset002_Heart"),
        ("102", "Dataset102_Livers"),
        ("Dataset102_Livers", "Dataset102_Livers"),
        ("Dataset104_B", "Dataset104_B"),
    ],
)
def test_an_id_or_a_name_stands_for_the_folder(raw, tmp_path, given, name):
    assert find_dataset_folder(Path(given)) == raw / name


@pytest.mark.parametrize("given", ["102", "Dataset102_Livers"])
def test_a_folder_of_this_name_goes_first(raw, tmp_path, given):
    (tmp_path / given).mkdir()
    assert find_dataset_folder(Path(given)) == Path(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("7", "raw: has no dataset 7. Give the id or name"),
        ("104", "raw: several datasets have the id 104: Dataset104_A, Dataset104_B"),
        ("Dataset102_Liver", "has no dataset Dataset102_Liver. Did you mean Dataset102_Livers"),
        ("livers", "livers: does not exist"),
    ],
)
def test_what_matches_none_or_several_is_refused(raw, tmp_path, given, message):
    with pytest.raises(FseftError, match=message):
        read_dataset(Path(given))


def test_without_the_variable_the_error_names_it(tmp_path, monkeypatch):
    monkeypatch.delenv("nnUNet_raw", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FseftError, match=r"102: does not exist.* set nnUNet_raw"):
        api.read_dataset("102")
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "nowhere"))
    with pytest.raises(FseftError, match=r"nowhere: is not a folder. Correct the variable"):
        api.read_dataset("102")
