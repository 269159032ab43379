"""The U-Net of SuPreM: the names of its checkpoints, and volumes that do not see each other."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fseft.builtin.architectures.networks.suprem import VolumeNorm
from fseft.builtin.architectures.suprem_unet import SuPreMUNet, SuPreMUNetConfig


@pytest.fixture
def network():
    torch.manual_seed(0)
    return SuPreMUNet().build(in_channels=1, out_channels=3, config=SuPreMUNetConfig(width=4))


@pytest.fixture
def batch():
    return torch.randn((2, 1, 16, 24, 16), generator=torch.Generator().manual_seed(0))


def test_all_but_the_head_has_the_entries_and_parameters_of_public_checkpoints():
    network = SuPreMUNet().build(in_channels=1, out_channels=32, config=SuPreMUNetConfig())
    state = {
        name: tensor
        for name, tensor in network.state_dict().items()
        if not name.startswith("head.")
    }
    assert len(state) == 104
    assert sum(p.numel() for name, p in network.named_parameters() if name in state) == 19_073_600
    shapes = {
        "down_tr64.ops.0.conv1.weight": (32, 1, 3, 3, 3),
        "down_tr64.ops.1.bn1.running_var": (64,),
        "down_tr512.ops.1.conv1.weight": (512, 256, 3, 3, 3),
        "down_tr512.ops.1.bn1.num_batches_tracked": (),
        "up_tr256.up_conv.weight": (512, 512, 2, 2, 2),
        "up_tr256.ops.0.conv1.weight": (256, 768, 3, 3, 3),
        "up_tr64.ops.1.conv1.bias": (64,),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes


@torch.no_grad()
def test_a_volume_has_the_same_logits_alone_and_in_a_batch(network, batch):
    for mode in (True, False):
        together = network.train(mode)(batch)
        torch.testing.assert_close(network(batch[:1]), together[:1], rtol=0, atol=1e-5)


@torch.no_grad()
def test_for_one_volume_it_equals_the_original_with_batch_statistics(network, batch):
    alone = network(batch[:1])
    for module in network.modules():
        if isinstance(module, VolumeNorm):
            module.forward = lambda x, m=module: F.batch_norm(
                x, None, None, m.weight, m.bias, training=True
            )
    torch.testing.assert_close(network(batch[:1]), alone, rtol=0, atol=1e-5)
    assert (network(batch)[:1] - alone).abs().max() > 1e-3


@torch.no_grad()
def test_running_statistics_are_neither_used_nor_changed(network, batch):
    expected = network(batch)
    statistics = {name: buffer for name, buffer in network.named_buffers() if "running" in name}
    assert len(statistics) == 28
    for buffer in statistics.values():
        buffer.fill_(7)
    for mode in (True, False):
        assert torch.equal(network.train(mode)(batch), expected)
    assert all((buffer == 7).all() for buffer in statistics.values())


@torch.no_grad()
def test_it_equals_a_reimplementation_from_its_tensors(network, batch):
    """Written once more, from the names."""
    state = network.state_dict()

    def unit(x, name):
        x = F.conv3d(x, state[f"{name}.conv1.weight"], state[f"{name}.conv1.bias"], padding=1)
        return (
            nn.InstanceNorm3d(x.shape[1])(x)
            .mul(state[f"{name}.bn1.weight"][:, None, None, None])
            .relu()
        )

    def stage(x, name):
        return unit(unit(x, f"{name}.ops.0"), f"{name}.ops.1")

    skips = [stage(batch, "down_tr64")]
    for name in ("down_tr128", "down_tr256", "down_tr512"):
        skips.append(stage(F.max_pool3d(skips[-1], 2), name))
    x = skips.pop()
    for name in ("up_tr256", "up_tr128", "up_tr64"):
        x = F.conv_transpose3d(
            x, state[f"{name}.up_conv.weight"], state[f"{name}.up_conv.bias"], stride=2
        )
        x = stage(torch.cat([x, skips.pop()], 1), name)
    torch.testing.assert_close(SuPreMUNet().features(network, batch), x, rtol=0, atol=1e-5)


def test_layers_have_their_parts_stages_and_roles(network, places):
    expected = {
        "down_tr64.ops.0.conv1": ("encoder", 0, "conv.spatial", True),
        "down_tr256.ops.1.bn1": ("encoder", 2, "norm", False),
        "down_tr512.ops.0.conv1": ("bottleneck", 3, "conv.spatial", True),
        "up_tr256.up_conv": ("decoder", 2, "conv.transposed", False),
        "up_tr64.ops.1.conv1": ("decoder", 0, "conv.spatial", True),
        "head": ("head", 0, "conv.pointwise", False),
    }
    assert expected.items() <= places(SuPreMUNet(), network).items()
    assert len(SuPreMUNet().targets(network)) == 14 + 14 + 3 + 1
