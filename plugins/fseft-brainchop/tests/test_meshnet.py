"""The network keeps the contract of architectures, and sees the field that its dilations say."""

from __future__ import annotations

import pytest
import torch

from fseft.learn.networks.backbone import build_network, get_architecture
from fseft.testing import TinyNetwork, architecture_checks, method_checks
from fseft_brainchop.config import MeshNetConfig

VARIANTS = {
    "elu": {"channels": 4, "dilations": [1, 2, 1]},
    "gelu": {"channels": 4, "dilations": [2, 1, 2, 1], "activation": "gelu", "norm": "instance"},
}
TINY = [TinyNetwork(hparams, (16, 18, 17)) for hparams in VARIANTS.values()]
METHODS = {"linear-probe": None, "lora": {"rank": 2}}
"""Method -> its settings for narrow networks."""


def network_of(hparams):
    return build_network(
        get_architecture("meshnet"), in_channels=1, out_channels=3, hparams=hparams, seed=0
    ).eval()


@pytest.mark.parametrize(
    "check", [c for tiny in TINY for c in architecture_checks("meshnet", tiny)]
)
def test_the_architecture_keeps_the_contract(check):
    check()


@pytest.mark.parametrize(
    "check",
    [
        check
        for method, config in METHODS.items()
        for check in method_checks(method, config=config, networks={"meshnet": TINY[0]}, layers=())
    ],
)
def test_methods_keep_their_contract(check):
    check()


@torch.no_grad()
def test_an_output_depends_on_the_receptive_field_only():
    hparams = VARIANTS["elu"]
    side = MeshNetConfig(**hparams).receptive_field
    assert (side, MeshNetConfig().receptive_field) == (9, 93)
    network, image = network_of(hparams), torch.randn(1, 1, 21, 21, 21)
    changed = image.clone()
    changed[..., 10, 10, 10] += 5
    moved = (network(changed) - network(image)).abs().amax((0, 1))
    inside = moved[6:15, 6:15, 6:15].clone()
    moved[6:15, 6:15, 6:15] = 0
    assert inside.amin() > 0
    assert moved.amax() == 0


@torch.no_grad()
def test_a_normalised_network_ignores_the_scale_of_the_image():
    network, image = network_of(VARIANTS["gelu"]), torch.randn(1, 1, 16, 16, 16)
    torch.testing.assert_close(network(3 * image + 0), network(image), rtol=1e-3, atol=1e-3)


def test_parts_are_those_before_and_after_the_middle():
    network = network_of({})
    parts = [target.part for target in get_architecture("meshnet").targets(network)]
    assert parts == ["encoder"] * 4 + ["bottleneck"] + ["decoder"] * 4 + ["head"]
