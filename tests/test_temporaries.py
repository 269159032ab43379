"""What a killed process leaves is removed, and what a live one uses is not."""

from __future__ import annotations

import errno
import os
import signal
import time
from contextlib import contextmanager

import pytest

from fseft import api, temporaries, workspace
from fseft.errors import FseftError
from fseft.temporaries import (
    in_use,
    last_use,
    remove_folder,
    remove_leftovers,
    remove_unused,
)
from fseft.workspace import atomic_write, write_text


@contextmanager
def stopped_process(function):
    """Runs a function in another process until it calls its argument, which waits to be killed."""
    ready, started = os.pipe()
    child = os.fork()
    if child == 0:

        def wait():
            os.write(started, b".")
            time.sleep(600)

        function(wait)
        os._exit(0)
    os.read(ready, 1)
    try:
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready)
        os.close(started)


@pytest.fixture(autouse=True)
def _new_process():
    """Lets the next write list its folder again, as in a new process."""
    workspace._remove_leftovers_once.cache_clear()


def write_half(target):
    """Returns a function that is stopped while it writes a file or folder."""

    def write(wait):
        with atomic_write(target) as temporary:
            if target.suffix:
                temporary.write_text("half")
            else:
                temporary.mkdir()
                (temporary / "half").touch()
            wait()

    return write


@pytest.mark.parametrize("name", ["a.txt", "folder"])
def test_the_next_write_removes_what_a_killed_process_left(tmp_path, name):
    with stopped_process(write_half(tmp_path / name)):
        pass
    assert len(list(tmp_path.iterdir())) == 1
    write_text(tmp_path / "other.txt", "new")
    assert list(tmp_path.iterdir()) == [tmp_path / "other.txt"]


@pytest.mark.parametrize("name", ["a.txt", "folder"])
def test_temporary_files_of_a_live_process_stay(tmp_path, name):
    with stopped_process(write_half(tmp_path / name)):
        before = set(tmp_path.rglob("*"))
        remove_leftovers(tmp_path)
        assert set(tmp_path.rglob("*")) == before


def test_a_folder_between_old_and_new_is_restored(tmp_path, monkeypatch):
    """Where folders cannot be exchanged, a kill may fall between the two renames."""
    monkeypatch.setattr(temporaries, "_exchange", lambda *_: False)
    model = tmp_path / "model"
    model.mkdir()
    (model / "old").touch()

    def replace(wait):
        rename = type(model).rename
        monkeypatch.setattr(
            type(model), "rename", lambda *paths: wait() if paths[1] == model else rename(*paths)
        )
        with atomic_write(model) as temporary:
            temporary.mkdir()
            (temporary / "new").touch()

    with stopped_process(replace):
        assert not model.exists()
    remove_leftovers(tmp_path)
    assert list(tmp_path.rglob("*")) == [model, model / "old"]


@pytest.mark.parametrize(
    "name", [".tmp-thesis", ".tmp-0123456789ab", ".fseft-tmp-mine", ".fseft-tmp-0123456789ab"]
)
def test_a_folder_of_another_program_stays(tmp_path, name):
    """Also one of the same name, as long as fseft has put no lock file into it."""
    chapter = tmp_path / name / "chapter.txt"
    chapter.parent.mkdir()
    chapter.touch()
    write_text(tmp_path / "other.txt", "new")
    assert list(chapter.parent.iterdir()) == [chapter]


def test_a_folder_of_a_process_killed_before_it_was_locked_is_removed(tmp_path):
    (tmp_path / ".fseft-tmp-0123456789ab").mkdir()
    write_text(tmp_path / "other.txt", "new")
    assert list(tmp_path.iterdir()) == [tmp_path / "other.txt"]


def test_a_folder_is_replaced_where_the_system_refuses_to_rename_onto_one(tmp_path, monkeypatch):
    """As Windows does, with a permission error."""
    write_text(tmp_path / "model" / "old", "")
    replace = type(tmp_path).replace

    def refuse(source, target):
        if target.is_dir():
            raise PermissionError(errno.EACCES, "Access is denied")
        return replace(source, target)

    monkeypatch.setattr(type(tmp_path), "replace", refuse)
    monkeypatch.setattr(temporaries, "_exchange", lambda *_: False)
    with atomic_write(tmp_path / "model") as temporary:
        temporary.mkdir()
        (temporary / "new").touch()
    assert list(tmp_path.rglob("*")) == [tmp_path / "model", tmp_path / "model" / "new"]


def test_a_folder_in_the_place_of_a_file_stays(tmp_path):
    write_text(tmp_path / "a.txt" / "chapter", "")
    with pytest.raises(FseftError):
        write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt" / "chapter").is_file()


def test_names_may_be_as_long_as_the_file_system_permits(tmp_path):
    path = tmp_path / ("a" * 251 + ".txt")
    write_text(path, "new")
    assert path.read_text() == "new"


def test_a_cache_that_a_live_process_uses_stays(tmp_path):
    folder = tmp_path / "cache"

    def use(wait):
        with in_use(folder):
            wait()

    with stopped_process(use):
        assert not remove_unused(folder)
        assert folder.is_dir()
    assert remove_unused(folder)
    assert list(tmp_path.iterdir()) == []


def test_several_processes_may_use_a_cache(tmp_path):
    with in_use(tmp_path / "cache"), in_use(tmp_path / "cache"):
        assert not remove_unused(tmp_path / "cache")
    assert remove_unused(tmp_path / "cache")


def test_the_last_use_of_a_cache_is_known(tmp_path):
    assert last_use(tmp_path / "cache") == 0
    with in_use(tmp_path / "cache"):
        assert time.time() - last_use(tmp_path / "cache") < 60


def test_a_file_system_without_locks_keeps_everything(tmp_path, monkeypatch):
    monkeypatch.setattr(temporaries, "fcntl", None)
    with in_use(tmp_path / "cache"):
        write_text(tmp_path / "cache" / "a.txt", "new")
    assert not remove_unused(tmp_path / "cache")
    with stopped_process(write_half(tmp_path / "b.txt")):
        pass
    remove_leftovers(tmp_path)
    assert {path.suffix for path in tmp_path.rglob("*")} == {"", ".txt"}
    assert len(list(tmp_path.glob(".fseft-tmp-*"))) == 1


def test_a_folder_is_removed_in_one_step(tmp_path, monkeypatch):
    folder = tmp_path / "predictions"
    write_text(folder / "a.txt", "")

    def interrupt(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.rmtree", interrupt)
    with pytest.raises(KeyboardInterrupt):
        remove_folder(folder)
    assert not folder.exists()
    monkeypatch.undo()
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_leftover_whose_removal_was_killed_is_removed_later(tmp_path, monkeypatch):
    leftover = tmp_path / ".fseft-tmp-0123456789ab"
    for name in ("new/a", "probabilities/b", ".lock"):
        write_text(leftover / name, "")

    def interrupt(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.rmtree", interrupt)
    with pytest.raises(KeyboardInterrupt):
        remove_leftovers(tmp_path)
    assert (leftover / ".lock").is_file()
    monkeypatch.undo()
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_model_whose_replacement_was_killed_is_found(tmp_path):
    """Where folders cannot be exchanged, the next command restores it."""
    previous = tmp_path / "models" / ".fseft-tmp-0123456789ab" / "old" / "mine"
    write_text(previous / "model.json", "{}")
    write_text(previous.parents[1] / ".lock", "")
    assert "mine" in api.list_models(tmp_path)
    assert not previous.exists()
