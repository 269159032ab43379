"""The memory estimate grows with crops, voxels, outputs and widths."""

from __future__ import annotations

import pytest

from fseft.learn.training.memory_estimate import OVERHEAD_BYTES, installed_bytes, training_bytes

TINY = {"channels": (4, 8), "features": 4}


def needed(patch=(32, 32, 32), crops=1, channels=1, outputs=3, hparams=TINY):
    sizes = {"in_channels": channels, "out_channels": outputs, "patch_size": patch, "crops": crops}
    return training_bytes("resunet", hparams, **sizes) - OVERHEAD_BYTES


def test_twice_the_crops_or_voxels_need_about_twice_the_memory():
    one_crop, two_crops = needed(crops=1), needed(crops=2)
    assert two_crops == pytest.approx(2 * one_crop, rel=0.1)
    larger_patch = needed(patch=(64, 32, 32))
    assert larger_patch == pytest.approx(two_crops, rel=0.01)


def test_the_memory_is_linear_in_the_outputs():
    assert needed(outputs=105) - needed(outputs=5) == 100 * 20 * 32**3


def test_a_wider_network_needs_more():
    assert needed(hparams={"channels": (8, 16), "features": 8}) > needed() > 0


def test_the_limit_of_a_container_counts(tmp_path, monkeypatch):
    whole = installed_bytes()
    for text, expected in (
        ("1000000\n", 1_000_000),
        ("max\n", whole),
        ("9223372036854771712", whole),
    ):
        (tmp_path / "memory.max").write_text(text)
        monkeypatch.setattr(
            "fseft.learn.training.memory_estimate.LIMITS",
            (tmp_path / "memory.max", tmp_path / "none"),
        )
        assert installed_bytes() == expected


def test_lists_from_json_equal_tuples():
    assert needed(hparams={"channels": [4, 8], "features": 4}) == needed()
