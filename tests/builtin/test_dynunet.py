"""DynUNet: each block once, MONAI's function, and anisotropic strides."""

from __future__ import annotations

import pytest
import torch

from fseft.builtin.architectures.dynunet import DynUNet, DynUNetConfig
from fseft.learn.networks.backbone import patch_limits

SMALL = {"filters": (4, 6, 8), "strides": ((1, 2, 2), 2), "kernel_size": ((1, 3, 3), 3, 3)}


def build(**more):
    torch.manual_seed(0)
    return DynUNet().build(in_channels=1, out_channels=3, config=DynUNetConfig(**{**SMALL, **more}))


def test_the_default_has_the_parameters_of_nnunet():
    network = DynUNet().build(in_channels=1, out_channels=2, config=DynUNetConfig())
    assert sum(p.numel() for p in network.parameters()) == 31_189_410
    assert len(network.state_dict()) == 73


@torch.no_grad()
@pytest.mark.parametrize("res_block", [False, True])
def test_it_computes_the_same_as_monai_from_its_weights(res_block):
    from monai.networks.nets import DynUNet as Network

    theirs = Network(
        3,
        1,
        3,
        ((1, 3, 3), 3, 3),
        (1, (1, 2, 2), 2),
        ((1, 2, 2), 2),
        filters=(4, 6, 8),
        res_block=res_block,
    )
    state = {
        name: tensor
        for name, tensor in theirs.state_dict().items()
        if not name.startswith("skip_layers.")
    }
    network = build(res_block=res_block)
    network.load_state_dict(state)
    x = torch.randn(1, 1, 8, 16, 16)
    assert torch.equal(network(x), theirs(x))


def test_the_strides_limit_the_patches():
    limits = patch_limits(DynUNet(), {"filters": (4,) * 7, "strides": ((2, 2, 1), *[2] * 5)})
    assert (limits.divisor, limits.minimum) == ((64, 64, 32), (128, 128, 64))
    assert limits.nearest((64, 130, 70)) == (128, 192, 96)


def test_layers_have_their_parts_stages_and_roles(places):
    expected = {
        "input_block.conv3.conv": ("encoder", 0, "conv.pointwise", True),
        "downsamples.0.conv1.conv": ("encoder", 1, "conv.spatial", True),
        "downsamples.0.norm2": ("encoder", 1, "norm", False),
        "bottleneck.conv2.conv": ("bottleneck", 2, "conv.spatial", True),
        "upsamples.0.transp_conv.conv": ("decoder", 1, "conv.transposed", False),
        "upsamples.1.conv_block.conv2.conv": ("decoder", 0, "conv.spatial", True),
        "output_block.conv.conv": ("head", 0, "conv.pointwise", False),
    }
    assert expected.items() <= places(DynUNet(), build(res_block=True)).items()
