"""The residual U-Net: shapes, features, and a role for every layer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fseft.builtin.architectures.resunet import ResUNet

DEPTHS = [{"channels": (4, 8), "features": 4}, {"channels": (4, 4, 8, 8), "features": 4}, {}]


@pytest.fixture(params=DEPTHS, ids=["2 levels", "4 levels", "default"])
def network(request):
    return ResUNet().build(in_channels=1, out_channels=3, **request.param).eval()


@pytest.fixture
def x():
    return torch.randn((1, 1, 32, 48, 32), generator=torch.Generator().manual_seed(0))


def named(network):
    return {target.name: target for target in ResUNet().targets(network)}


@torch.no_grad()
def test_the_output_has_the_size_of_the_input(network, x):
    assert network(x).shape == (1, 3, 32, 48, 32)


@torch.no_grad()
def test_the_smallest_patch_is_large_enough_and_training_works_on_it(network):
    network.train()
    assert torch.isfinite(network(torch.randn(2, 1, *ResUNet.minimum_patch))).all()


@torch.no_grad()
def test_the_head_classifies_the_features(network, x):
    features = ResUNet().features(network, x)
    assert torch.equal(ResUNet().head(network)(features), network(x))


@torch.no_grad()
def test_another_head_may_take_the_place(network, x):
    before = ResUNet().features(network, x)
    head = nn.Conv3d(before.shape[1], 5, 1)
    ResUNet().replace_head(network, head)
    assert ResUNet().head(network) is head
    assert torch.equal(network(x), head(before))


def test_every_convolution_and_norm_has_one_role(network):
    kinds = (nn.Conv3d, nn.ConvTranspose3d, nn.InstanceNorm3d)
    found = {name for name, module in network.named_modules() if isinstance(module, kinds)}
    targets = ResUNet().targets(network)
    assert {target.name for target in targets} == found
    assert len(targets) == len(found)
    assert all(network.get_submodule(target.name) is target.module for target in targets)


def test_parts_lie_where_they_should(network):
    targets = ResUNet().targets(network)
    deepest = max(target.stage for target in targets)
    assert {target.part for target in targets} == {"encoder", "bottleneck", "decoder", "head"}
    assert {target.stage for target in targets if target.part == "bottleneck"} == {deepest}
    for part in ("encoder", "decoder"):
        assert {target.stage for target in targets if target.part == part} == set(range(deepest))
    assert [target.name for target in targets if target.part == "head"] == ["head"]
    assert {t.part for t in targets if t.role == "conv.transposed"} == {"decoder"}
    assert named(network)["norm"].part == "decoder"


def test_layers_before_a_norm_are_told_apart(network):
    last = "body.model.2.1.conv.unit0.conv"
    for name, target in named(network).items():
        alone = target.role == "norm" or name in ("head", last) or name.endswith("residual")
        assert target.followed_by_norm is not alone


@torch.no_grad()
def test_the_scale_and_bias_of_a_layer_before_a_norm_have_no_effect(network, x):
    before = network(x)
    for target in ResUNet().targets(network):
        if target.followed_by_norm:
            target.module.weight.mul_(3)
            target.module.bias.mul_(3).add_(1)
    assert torch.allclose(network(x), before, atol=2e-3)


def test_the_default_width_is_as_the_summary_says():
    network = ResUNet().build(in_channels=1, out_channels=12)
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 1) == 2.8
