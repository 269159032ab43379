"""SegResNet: the names of the whole-body bundle, and norms that come before their convolutions."""

from __future__ import annotations

import torch

from fseft.builtin.architectures.segresnet import SegResNet, SegResNetConfig


def build(**more):
    torch.manual_seed(0)
    return SegResNet().build(
        in_channels=1, out_channels=3, config=SegResNetConfig(init_filters=8, **more)
    )


def test_the_default_has_the_entries_and_parameters_of_the_whole_body_bundle():
    network = SegResNet().build(in_channels=1, out_channels=105, config=SegResNetConfig())
    state = network.state_dict()
    assert len(state) == 83
    assert sum(p.numel() for p in network.parameters()) == 18_799_401
    shapes = {
        "convInit.conv.weight": (32, 1, 3, 3, 3),
        "down_layers.3.4.conv2.conv.weight": (256, 256, 3, 3, 3),
        "up_samples.0.0.conv.weight": (128, 256, 1, 1, 1),
        "conv_final.2.conv.weight": (105, 32, 1, 1, 1),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes


def test_dropout_acts_in_training_only_and_adds_no_tensor():
    plain, dropping = build(), build(dropout_prob=0.5)
    assert plain.state_dict().keys() == dropping.state_dict().keys()
    x = torch.randn(1, 1, 16, 16, 16)
    assert torch.equal(dropping.eval()(x), plain(x))
    assert not torch.equal(dropping.train()(x), plain(x))


def test_layers_have_their_parts_stages_and_roles(places):
    expected = {
        "convInit.conv": ("encoder", 0, "conv.spatial", False),
        "down_layers.1.0.conv": ("encoder", 1, "conv.spatial", False),
        "down_layers.2.1.conv1.conv": ("encoder", 2, "conv.spatial", True),
        "down_layers.2.1.conv2.conv": ("encoder", 2, "conv.spatial", False),
        "down_layers.3.4.norm2": ("bottleneck", 3, "norm", False),
        "up_samples.0.0.conv": ("decoder", 2, "conv.pointwise", False),
        "up_layers.2.0.conv1.conv": ("decoder", 0, "conv.spatial", True),
        "conv_final.0": ("decoder", 0, "norm", False),
        "conv_final.2.conv": ("head", 0, "conv.pointwise", False),
    }
    assert expected.items() <= places(SegResNet(), build()).items()
