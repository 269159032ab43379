"""The residual U-Net: as wide as it says, and a role for every layer."""

from __future__ import annotations

import pytest
import torch

from fseft.builtin.architectures.resunet import ResUNet, ResUNetConfig

DEPTHS = [{"channels": (4, 8), "features": 4}, {"channels": (4, 4, 8, 8), "features": 4}, {}]


@pytest.fixture(params=DEPTHS, ids=["2 levels", "4 levels", "default"])
def network(request):
    return (
        ResUNet().build(in_channels=1, out_channels=3, config=ResUNetConfig(**request.param)).eval()
    )


def named(network):
    return {target.name: target for target in ResUNet().targets(network)}


@torch.no_grad()
def test_it_starts_at_half_resolution_and_returns_the_size_of_the_input(network):
    seen = []
    network.get_submodule("body.model.0").register_forward_hook(
        lambda *call: seen.append(call[-1].shape[2:])
    )
    assert network(torch.zeros(1, 1, 32, 48, 32)).shape == (1, 3, 32, 48, 32)
    assert seen == [(16, 24, 16)]


def test_layers_have_their_parts(network):
    targets = named(network)
    assert {target.part for target in targets.values() if target.role == "conv.transposed"} == {
        "decoder"
    }
    assert (targets["body.model.0.residual"].part, targets["body.model.0.residual"].stage) == (
        "encoder",
        0,
    )
    assert (targets["norm"].part, targets["norm"].stage) == ("decoder", 0)
    assert targets["head"].part == "head"


def test_layers_before_a_norm_are_marked(network):
    last = "body.model.2.1.conv.unit0.conv"
    for name, target in named(network).items():
        alone = (
            target.role in ("norm", "act") or name in ("head", last) or name.endswith("residual")
        )
        assert target.followed_by_norm is not alone


def test_the_default_has_the_parameters_of_the_summary():
    network = ResUNet().build(in_channels=1, out_channels=12, config=ResUNetConfig())
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 1) == 2.8
