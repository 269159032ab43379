"""MedNeXt: MONAI's function with a plain pointwise head, and a role for every block."""

from __future__ import annotations

import pytest
import torch
from monai.networks.nets.mednext import create_mednext

from fseft.builtin.architectures.mednext import MedNeXt, MedNeXtConfig

SIZES = {
    "S": {},
    "B": {"expansion": (2, 3, 4, 4)},
    "M": {"blocks": (3, 4, 4, 4), "expansion": (2, 3, 4, 4)},
    "L": {"blocks": (3, 4, 8, 8), "expansion": (3, 4, 8, 8)},
}


@torch.no_grad()
def test_the_default_is_mednext_s_with_a_transposed_head():
    network, theirs = (
        MedNeXt().build(in_channels=1, out_channels=2, config=MedNeXtConfig()),
        create_mednext("S", out_channels=2),
    )
    assert sum(p.numel() for p in network.parameters()) == 5_550_914
    state = theirs.state_dict()
    network.load_state_dict(
        {**state, "out_0.conv_out.weight": state["out_0.conv_out.weight"].transpose(0, 1)}
    )
    x = torch.randn(1, 1, 32, 32, 32)
    torch.testing.assert_close(network(x), theirs(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_the_hyperparameters_cover_the_sizes_of_the_paper(size):
    with torch.device("meta"):
        network = MedNeXt().build(
            in_channels=1, out_channels=2, config=MedNeXtConfig(**SIZES[size])
        )
        theirs = create_mednext(size, out_channels=2)
    body = [
        {n: p.shape for n, p in net.named_parameters() if not n.startswith("out_0")}
        for net in (network, theirs)
    ]
    assert body[0] == body[1]


@pytest.fixture
def network():
    return MedNeXt().build(
        in_channels=1, out_channels=3, config=MedNeXtConfig(init_filters=4, blocks=(1, 2))
    )


def test_layers_have_their_parts_stages_and_roles(network, places):
    expected = {
        "stem": ("encoder", 0, "conv.pointwise", False),
        "enc_stages.1.0.conv1": ("encoder", 1, "conv.spatial", True),
        "enc_stages.1.0.conv2": ("encoder", 1, "conv.pointwise", False),
        "down_blocks.1.res_conv": ("encoder", 1, "conv.pointwise", False),
        "bottleneck.0.norm": ("bottleneck", 2, "norm", False),
        "up_blocks.0.conv1": ("decoder", 1, "conv.transposed", True),
        "dec_stages.1.0.conv3": ("decoder", 0, "conv.pointwise", False),
        "out_0.conv_out": ("head", 0, "conv.pointwise", False),
    }
    assert expected.items() <= places(MedNeXt(), network).items()


def test_blocks_that_keep_the_resolution_have_the_role_block(network):
    blocks = {target.name for target in MedNeXt().targets(network) if target.role == "block"}
    levels = [
        "enc_stages.0.0",
        "enc_stages.1.0",
        "enc_stages.1.1",
        "dec_stages.0.0",
        "dec_stages.0.1",
        "dec_stages.1.0",
    ]
    assert blocks == {*levels, "bottleneck.0", "bottleneck.1"}
