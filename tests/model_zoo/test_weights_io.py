"""Weights are written without a copy of them in memory, with the rights of other files, and errors
of the disk told.
"""

from __future__ import annotations

import errno
import os
import resource

import pytest
import torch
from safetensors.torch import load_file

from fseft.errors import FseftError
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
