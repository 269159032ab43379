"""The memory estimate grows with what is asked for and takes whatever a model card may say."""

from __future__ import annotations

import pytest

from fseft.learn.training.memory_estimate import OVERHEAD_BYTES, installed_bytes, training_bytes

TINY = {"channels": (4, 8), "features": 4}


def needed(patch=(32, 32, 32), crops=1, channels=1, outputs=3, hparams=TINY):
    sizes = {"in_channels": channels, "out_channels": outputs, "patch_size": patch, "crops": crops}
    return training_bytes("resunet", hparams, **sizes) - OVERHEAD_BYTES


def test_twice_the_crops_or_voxels_need_about_twice_the_memory():
    assert needed(crops=2) == pytest.approx(2 * needed(), rel=0.1)
    assert needed(patch=(64, 32, 32)) == pytest.approx(needed(crops=2), rel=0.01)


def test_every_structure_needs_its_share():
    assert needed(outputs=105) - needed(outputs=5) == 100 * 20 * 32**3


def test_a_wider_network_needs_more():
    assert needed(hparams={"channels": (8, 16), "features": 8}) > needed() > 0


def test_the_memory_of_a_container_is_what_it_may_use(tmp_path, monkeypatch):
    whole = installed_bytes()
    for text, told in (("1000000\n", 1_000_000), ("max\n", whole), ("9223372036854771712", whole)):
        (tmp_path / "memory.max").write_text(text)
        monkeypatch.setattr(
            "fseft.learn.training.memory_estimate.LIMITS",
            (tmp_path / "memory.max", tmp_path / "none"),
        )
        assert installed_bytes() == told


def test_lists_as_they_come_from_json_are_as_good_as_tuples():
    assert needed(hparams={"channels": [4, 8], "features": 4}) == needed()
