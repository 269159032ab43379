"""The memory estimate grows with crops, voxels, outputs and widths."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from fseft.learn.networks.backbone import build_network, get_architecture, patch_limits
from fseft.learn.training import cost_measurement
from fseft.learn.training.memory_estimate import OVERHEAD_BYTES, installed_bytes, training_bytes
from fseft.schemas import Contract
from fseft.testing.tiny_networks import TINY_NETWORKS
from tests.peak_memory import PEAK_BYTES
from tests.sample_data import write_model

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


@pytest.mark.parametrize("name", TINY_NETWORKS)
def test_a_run_without_memory_counts_the_same_as_a_real_one(name):
    architecture, hparams = get_architecture(name), TINY_NETWORKS[name].hparams
    options = {"in_channels": 1, "out_channels": 2, "hparams": hparams, "seed": 0}
    patch = torch.zeros(1, 1, *patch_limits(architecture, hparams).minimum)
    real = cost_measurement._count(build_network(architecture, **options), patch)
    network = build_network(architecture, **options).to("meta")
    assert cost_measurement._count(network, patch.to("meta")) == real


PEAK = f"""
import sys
from fseft import api
dataset, workspace, method, decoder, architecture = sys.argv[1:]
options = dict(decoder=decoder) if decoder else dict()
api.adapt(dataset, architecture, method, k=1, workspace=workspace, device="cpu", epochs=3,
          crops_per_step=4, early_stopping=False, **options)
print({PEAK_BYTES})
"""


@pytest.mark.full
@pytest.mark.parametrize(
    ("method", "decoder"),
    [("lora", "fine-tuned"), ("full", ""), ("linear-probe", "")],
)
@pytest.mark.parametrize("architecture", ["resunet", "swinunetr", "segresnet"])
def test_the_estimate_covers_the_peak_of_a_training(
    method, decoder, architecture, blobs, workspace
):
    """A subprocess, so that its peak is that of the training alone."""
    wide = {"resunet": {}, "swinunetr": {"feature_size": 24}, "segresnet": {"init_filters": 16}}
    contract = Contract(spacing_mm=(1.5, 1.5, 1.5), patch_size=(64, 64, 64))
    write_model(
        workspace, "wide", architecture=architecture, hparams=wide[architecture], contract=contract
    )
    arguments = [str(blobs), str(workspace.root), method, decoder, "wide"]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PEAK, *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    peak = int(done.stdout.splitlines()[-1])
    estimate = training_bytes(
        architecture,
        wide[architecture],
        in_channels=1,
        out_channels=3,
        patch_size=(64, 64, 64),
        crops=4,
    )
    assert peak <= 1.1 * estimate
