"""Weights are written without a copy of them in memory, with the rights of other files; errors of
the disk are reported.
"""

from __future__ import annotations

import errno
import os
import resource
import zipfile

import pytest
import torch
from safetensors.torch import load_file

from fseft.errors import FseftError
from fseft.learn.networks.state_dict_mapping import unwrap
from fseft.model_zoo.weights_io import read_weights, write_weights


def test_tensors_that_share_memory_or_lie_crosswise_are_written_apart(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    tensors = {"whole": base, "same": base, "row": base[1], "turned": torch.rand(2, 5).T}
    write_weights(tmp_path / "a", tensors)
    kept = load_file(tmp_path / "a")
    assert kept.keys() == tensors.keys()
    assert all(torch.equal(kept[name], tensor) for name, tensor in tensors.items())


def test_the_file_may_be_read_by_whoever_may_read_others(tmp_path):
    write_weights(tmp_path / "a", {"a": torch.zeros(2)})
    (tmp_path / "other").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_an_error_of_the_disk_is_the_system_s_own(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EFBIG)) as caught:
            write_weights(tmp_path / "a", {"a": torch.zeros(1000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG


@pytest.mark.parametrize("with_crc", [True, False])
def test_a_flipped_bit_in_a_checkpoint_is_found(tmp_path, with_crc):
    path = tmp_path / "weights.pt"
    torch.serialization.set_crc32_options(with_crc)
    torch.save({"a": torch.ones(10_000)}, path)
    torch.serialization.set_crc32_options(True)
    assert torch.equal(read_weights(path)["a"], torch.ones(10_000))
    damaged = bytearray(path.read_bytes())
    damaged[20_000] ^= 1
    path.write_bytes(damaged)
    if with_crc:
        with pytest.raises(FseftError, match=r"weights\.pt: cannot be read .*it is damaged"):
            read_weights(path)


def test_a_file_of_torch_is_read_as_it_is_used(tmp_path):
    torch.save({"a": torch.zeros(1_000_000), "b": torch.ones(3)}, tmp_path / "a.pt")
    content = read_weights(tmp_path / "a.pt")
    with (tmp_path / "a.pt").open("r+b") as file:
        start = file.read().index(torch.ones(3).numpy().tobytes())
        file.seek(start)
        file.write(torch.full((3,), 2.0).numpy().tobytes())
    assert content["b"].tolist() == [2, 2, 2]


def in_zip(path, files, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def saved(path, content, **options):
    torch.save(content, path, **options)
    return path.read_bytes()


def test_a_checkpoint_that_was_compressed_again_has_the_same_tensors(tmp_path):
    tensors = {"a": torch.arange(1000.0)}
    saved(tmp_path / "a.pt", tensors)
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    in_zip(tmp_path / "b.pt", files)
    assert (tmp_path / "b.pt").stat().st_size < (tmp_path / "a.pt").stat().st_size
    assert torch.equal(read_weights(tmp_path / "b.pt")["a"], tensors["a"])


def test_an_archive_with_one_checkpoint_is_read_and_one_with_several_refused(tmp_path):
    tensors = {"a": torch.arange(1000.0)}
    content = saved(tmp_path / "a.pt", tensors)
    in_zip(tmp_path / "one.zip", {"model/README": b"read", "model/fold_0/a.pth": content})
    assert torch.equal(read_weights(tmp_path / "one.zip")["a"], tensors["a"])
    for count, files in {"2": {"a.pt": content, "b.pt": content}, "0": {"README": b"read"}}.items():
        in_zip(tmp_path / "other.zip", files)
        with pytest.raises(
            FseftError, match=rf"other\.zip: is an archive with {count} checkpoints"
        ):
            read_weights(tmp_path / "other.zip")


class Code:
    """Runs a command where it is unpickled."""

    def __reduce__(self):
        return os.system, ("false",)


@pytest.mark.parametrize("as_zip", [True, False])
def test_a_file_with_code_is_refused_for_that_reason_in_both_formats(tmp_path, as_zip):
    content = {"a": torch.zeros(2), "code": Code()}
    saved(tmp_path / "a.pt", content, _use_new_zipfile_serialization=as_zip)
    with pytest.raises(FseftError, match=r"would execute code from posix\.system.*allow-pickle"):
        read_weights(tmp_path / "a.pt")


def test_other_sets_of_weights_are_named_and_can_be_chosen(caplog):
    first, second = {"a": torch.zeros(2)}, {"a": torch.ones(2)}
    content = {"state_dict": first, "ema": second, "optimizer": {"state": {}}, "epoch": 3}
    assert unwrap(content) is not first
    assert torch.equal(unwrap(content)["a"], first["a"])
    assert "several sets of weights: state_dict is used, not ema" in caplog.messages[0]
    caplog.clear()
    assert torch.equal(unwrap(content, chosen="ema")["a"], second["a"])
    assert not caplog.messages
    with pytest.raises(FseftError, match=r"no set of weights 'teacher'\. It has state_dict, ema"):
        unwrap(content, chosen="teacher")
