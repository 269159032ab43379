"""SegResNetDS: the names of CT-FM, one output, and frozen batch statistics."""

from __future__ import annotations

import pytest
import torch

from fseft.builtin.architectures.segresnet_ds import SegResNetDS
from fseft.learn.adapters.apply import adapt_network
from fseft.learn.networks.backbone import build_network
from fseft.registry import registry

SMALL = {"init_filters": 4, "blocks_down": (1, 1, 1)}


@pytest.fixture
def network():
    return build_network(SegResNetDS(), in_channels=1, out_channels=3, hparams=SMALL, seed=0)


@pytest.fixture
def x():
    return torch.randn((2, 1, 16, 16, 16), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("classes", "parameters"), [(2, 87_163_298), (118, 87_167_126)])
def test_the_default_has_the_entries_of_ct_fm_with_one_head(classes, parameters):
    network = build_network(SegResNetDS(), in_channels=1, out_channels=classes, hparams={}, seed=0)
    state = network.state_dict()
    assert len(state) == 215
    assert len([name for name in state if name.startswith("encoder.")]) == 161
    assert sum(p.numel() for p in network.parameters()) == parameters
    shapes = {
        "encoder.conv_init.weight": (32, 1, 3, 3, 3),
        "encoder.layers.0.blocks.0.norm1.running_mean": (32,),
        "encoder.layers.4.blocks.3.conv2.weight": (512, 512, 3, 3, 3),
        "up_layers.3.upsample.deconv.weight": (64, 32, 3, 3, 3),
        "up_layers.3.head.weight": (classes, 32, 1, 1, 1),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes


def test_it_has_one_output_in_training(network, x):
    assert network.train()(x).shape == (2, 3, 16, 16, 16)


def test_a_frozen_network_keeps_its_batch_statistics(network, x):
    method = registry().create("method", "lora", registry().method("lora").config())
    adapted = adapt_network(SegResNetDS(), network, method, decoder="frozen", seed=0)
    initial = {name: buffer.clone() for name, buffer in network.named_buffers()}
    network.train(adapted.train_mode)(x)
    assert all(torch.equal(buffer, initial[name]) for name, buffer in network.named_buffers())
    network.train()(x)
    assert not all(torch.equal(buffer, initial[name]) for name, buffer in network.named_buffers())


def test_layers_have_their_parts_stages_and_roles(network, places):
    expected = {
        "encoder.conv_init": ("encoder", 0, "conv.spatial", False),
        "encoder.layers.1.blocks.0.conv1": ("encoder", 1, "conv.spatial", True),
        "encoder.layers.1.blocks.0.conv2": ("encoder", 1, "conv.spatial", False),
        "encoder.layers.1.downsample": ("encoder", 1, "conv.spatial", False),
        "encoder.layers.2.blocks.0.norm1": ("bottleneck", 2, "norm", False),
        "up_layers.0.upsample.deconv": ("decoder", 1, "conv.transposed", False),
        "up_layers.1.blocks.0.conv1": ("decoder", 0, "conv.spatial", True),
        "up_layers.1.head": ("head", 0, "conv.pointwise", False),
    }
    assert expected.items() <= places(SegResNetDS(), network).items()
