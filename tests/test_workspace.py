"""Files are written atomically, and content keys depend on content alone."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fseft import temporaries
from fseft.errors import FseftError
from fseft.schemas import TrainingSet
from fseft.workspace import (
    Workspace,
    atomic_write,
    digest,
    file_digest,
    read_document,
    write_document,
    write_error,
    write_text,
)

TRAINING_SET = TrainingSet(dataset="d", k=1, seed=0, cases=("a",))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


def test_a_document_reads_back_as_written(tmp_path):
    path = tmp_path / "new" / "support.json"
    write_document(path, TRAINING_SET)
    assert read_document(path, TrainingSet) == TRAINING_SET


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_behind(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def interrupted():
        with atomic_write(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]  # noqa: PTH208


def test_a_reader_never_sees_half_a_file(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with atomic_write(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_folder_is_replaced_as_a_whole(tmp_path, monkeypatch, can_exchange):
    if not can_exchange:
        monkeypatch.setattr(temporaries, "_exchange", lambda *_: False)
    for content in ("one", "two"):
        with atomic_write(tmp_path / "case") as temporary:
            temporary.mkdir()
            (temporary / content).write_text(content)
    assert list(tmp_path.rglob("*")) == [tmp_path / "case", tmp_path / "case" / "two"]


def test_a_folder_stays_if_its_replacement_cannot_be_moved(tmp_path, monkeypatch):
    folder = tmp_path / "case"
    folder.mkdir()
    (folder / "old").touch()
    rename = Path.rename

    def fail_on_replacement(path, target):
        if path.parent.name == "new":
            raise OSError(errno.EIO, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(temporaries, "_exchange", lambda *_: False)  # as on NFS
    monkeypatch.setattr(Path, "rename", fail_on_replacement)

    def replace():
        with atomic_write(folder) as temporary:
            temporary.mkdir()
            (temporary / "new").touch()

    with pytest.raises(FseftError, match="cannot be written"):
        replace()
    assert list(tmp_path.rglob("*")) == [folder, folder / "old"]


def test_two_writers_of_a_file_do_not_meet(tmp_path):
    with atomic_write(tmp_path / "a") as first, atomic_write(tmp_path / "a") as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "a").read_text() == "first"


def test_the_temporary_keeps_the_name(tmp_path):
    with atomic_write(tmp_path / "a.nii.gz") as temporary:
        temporary.write_bytes(b"x")
        assert temporary.name == "a.nii.gz"


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FseftError, match="the disk is full"):
        write_text(tmp_path / "a.txt", "x")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FseftError, match=r"below.*cannot be written"):
        write_text(tmp_path / "file" / "below" / "a.txt", "x")
    assert "Permission denied" in str(
        write_error(tmp_path, PermissionError(errno.EACCES, "Permission denied"))
    )


@pytest.mark.parametrize(
    "content", ["", "{", "{}", '{"dataset": 1}', TRAINING_SET.model_dump_json()[:-1] + ', "x": 1}']
)
def test_an_invalid_document_is_named(tmp_path, content):
    path = tmp_path / "support.json"
    path.write_text(content)
    with pytest.raises(
        FseftError, match=r"support\.json: is not (a valid training set|valid JSON)"
    ):
        read_document(path, TrainingSet)


def test_a_missing_document_is_named(tmp_path):
    with pytest.raises(FseftError, match="the training set does not exist"):
        read_document(tmp_path / "no.json", TrainingSet)


@given(st.dictionaries(st.text(max_size=3), json_values))
def test_a_digest_does_not_depend_on_the_order_of_keys(value):
    assert digest(value) == digest(dict(reversed(value.items())))


def test_a_digest_separates_its_parts():
    parts = [("ab",), ("a", "b"), ("b", "a"), (["a", "b"],), (b"ab",)]
    keys = {digest(*arguments) for arguments in parts}
    assert len(keys) == 5
    assert {len(key) for key in keys} == {16}


def test_a_file_digest_is_its_sha256(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc" * 500_000)
    assert file_digest(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_is_read_again_only_if_it_changed(tmp_path):
    path = tmp_path / "a"

    def written(data, seconds_ago):
        path.write_bytes(data)
        os.utime(path, (time.time() - seconds_ago,) * 2)
        return file_digest(path)

    sha = {data: hashlib.sha256(data).hexdigest() for data in (b"a", b"b", b"bb")}
    assert written(b"a", 0) == sha[b"a"]
    assert written(b"b", 0) == sha[b"b"]
    assert written(b"a", 60) == sha[b"a"]
    assert written(b"b", 30) == sha[b"b"]
    stat = path.stat()
    with path.open("r+b") as file:
        file.write(b"a")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert file_digest(path) == sha[b"b"]  # nothing shows that it changed
    assert written(b"bb", 30) == sha[b"bb"]


def test_models_of_the_workspace_have_a_card(tmp_path):
    workspace = Workspace(tmp_path)
    write_text(workspace.model("mine") / "model.json", "{}")
    workspace.model("unfinished").mkdir()
    assert workspace.models() == ["mine"]
