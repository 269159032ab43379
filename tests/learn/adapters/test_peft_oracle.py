"""Deltas compute and train exactly as the layers of Hugging Face PEFT do, where PEFT has them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from fseft.learn.adapters.adapter_layers import (
    ChannelScale,
    LowRank,
    Magnitude,
    PrincipalLowRank,
    add_delta,
)
from fseft.learn.networks.roles import Target

peft = pytest.importorskip("fseft_hf_peft.library", reason="needs plugins/fseft-hf-peft").peft

RANK, ALPHA = 3, 6.0
LAYERS = {"linear": lambda: nn.Linear(8, 6), "conv 3x3x3": lambda: nn.Conv3d(8, 6, 3, padding=1)}
VARIANTS = {
    "lora": ({}, LowRank, ALPHA / RANK),
    "rslora": ({"use_rslora": True}, LowRank, ALPHA / RANK**0.5),
    "dora": ({"use_dora": True}, LowRank, ALPHA / RANK),
    "pissa": ({"init_lora_weights": "pissa"}, PrincipalLowRank, ALPHA / RANK),
}


@pytest.fixture(params=LAYERS.values(), ids=LAYERS.keys())
def layer(request):
    torch.manual_seed(0)
    return request.param()


def an_input(layer):
    shape = (2, 8) if isinstance(layer, nn.Linear) else (2, 8, 5, 6, 7)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def injected(layer, config):
    """Return a copy of the layer with a layer of PEFT, as if trained."""
    network = peft.inject_adapter_in_model(config, nn.Sequential(copy.deepcopy(layer)))
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            parameter.data += 0.3 * torch.randn(
                parameter.shape, generator=torch.Generator().manual_seed(len(name))
            )
    return network


def ours(layer, *deltas):
    for delta in deltas:
        add_delta(Target("0", layer, "encoder", 0, "conv.spatial"), delta)
    return layer


def assert_same(network, theirs, layer, mine, x):
    """Assert equal outputs, and equal gradients of the paired parameters."""
    expected, output = network(x), layer(x)
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)
    expected.square().mean().backward()
    output.square().mean().backward()
    for parameter, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(
            parameter.grad.reshape(-1), other.grad.reshape(-1), atol=1e-5, rtol=1e-4
        )


@pytest.mark.parametrize(("options", "kind", "scale"), VARIANTS.values(), ids=VARIANTS.keys())
def test_low_rank_changes_are_those_of_peft(layer, options, kind, scale):
    x = an_input(layer)
    if "init_lora_weights" in options and not isinstance(layer, nn.Linear):
        pytest.skip("PEFT has PiSSA for linear layers only")
    network = injected(
        layer, peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["0"], **options)
    )
    theirs = [p for name, p in network.named_parameters() if "lora_" in name]
    theirs.sort(key=lambda p: p.numel() == 6)  # A, B, and the magnitudes, if any, last
    low_rank = kind(layer.weight, RANK, scale, torch.Generator())
    deltas = [low_rank, Magnitude(layer.weight, 0)] if "use_dora" in options else [low_rank]
    mine = [p for delta in deltas for p in delta.parameters()]
    for parameter, other in zip(mine, theirs, strict=True):
        parameter.data.copy_(other.detach().reshape(parameter.shape))
    assert_same(network, theirs, ours(layer, *deltas), mine, x)


@pytest.mark.parametrize("side", ["input", "output"])
def test_scales_are_those_of_peft(layer, side):
    feedforward = ["0"] if side == "input" else []
    network = injected(layer, peft.IA3Config(target_modules=["0"], feedforward_modules=feedforward))
    theirs = [p for name, p in network.named_parameters() if "ia3_" in name]
    scale = ChannelScale(layer.weight, 1 if side == "input" else 0)
    scale.s.data.copy_(theirs[0].detach().reshape(-1) - 1)
    ours(layer, scale)
    if side == "output":
        add_delta(Target("0", layer, "encoder", 0, "attn.qkv"), scale, "bias")
    assert_same(network, theirs, layer, [scale.s], an_input(layer))
