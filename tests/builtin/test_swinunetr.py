"""SwinUNETR: both patch mergings, the names of public checkpoints, and a role for every layer."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from einops import rearrange
from torch import nn

from fseft.builtin.architectures.swinunetr import SwinUNETR, SwinUNETRConfig, legacy_merging

SMALL = {"feature_size": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2), "window_size": 4}


def build(patch_merging="legacy", **more):
    torch.manual_seed(0)
    config = SwinUNETRConfig(patch_merging=patch_merging, **{**SMALL, **more})
    return SwinUNETR().build(in_channels=1, out_channels=3, config=config).eval()


@pytest.fixture(scope="module")
def network():
    return build()


@pytest.fixture(scope="module")
def x():
    return torch.randn((1, 1, 64, 64, 64), generator=torch.Generator().manual_seed(0))


def test_the_full_width_has_the_entries_and_parameters_of_public_checkpoints():
    network = SwinUNETR().build(in_channels=1, out_channels=14, config=SwinUNETRConfig())
    state = network.state_dict()
    assert len(state) == 159
    assert sum(p.numel() for p in network.parameters()) == 62_187_296
    assert state["swinViT.layers1.0.blocks.0.attn.relative_position_bias_table"].shape == (2197, 3)
    assert state["decoder5.transp_conv.conv.weight"].shape == (768, 384, 2, 2, 2)
    assert state["out.conv.conv.weight"].shape == (14, 48, 1, 1, 1)


def test_the_second_version_adds_its_residual_blocks(network, places):
    second = build(use_v2=True)
    blocks = {f"swinViT.layers{n}c.0.layer.conv{m}.conv" for n, m in product((1, 2, 3, 4), (1, 2))}
    assert second.state_dict().keys() - network.state_dict().keys() == {
        f"{name}.weight" for name in blocks
    }
    roles = places(SwinUNETR(), second)
    assert {roles[name] for name in blocks} == {
        ("encoder", n, "conv.spatial", True) for n in (1, 2, 3, 4)
    }


@torch.no_grad()
def test_both_patch_mergings_differ_for_the_same_weights(network, x):
    repaired = build("fixed")
    repaired.load_state_dict(network.state_dict())
    assert (network(x) - repaired(x)).abs().max() > 0.01


@torch.no_grad()
def test_the_legacy_merging_uses_the_octants_of_old_monai(x):
    torch.manual_seed(0)
    merging = legacy_merging()(dim=4, spatial_dims=3)
    voxels = torch.randn(2, 4, 6, 8, 4)
    corners = rearrange(
        voxels, "batch (i a) (j b) (k c) width -> a b c batch i j k width", a=2, b=2, c=2
    )
    taken = ["000", "100", "010", "001", "101", "010", "001", "111"]
    picked = torch.stack([corners[tuple(map(int, corner))] for corner in taken])
    together = rearrange(picked, "corner batch i j k width -> batch i j k (corner width)")
    torch.testing.assert_close(
        merging(voxels), merging.reduction(merging.norm(together)), rtol=0, atol=0
    )


def test_layers_have_their_parts_stages_and_roles(network, places):
    expected = {
        "swinViT.patch_embed.proj": ("encoder", 0, "patch_embed", False),
        "swinViT.layers1.0.blocks.0.attn": ("encoder", 1, "pos_bias", False),
        "swinViT.layers3.0.blocks.0.attn.qkv": ("encoder", 3, "attn.qkv", False),
        "swinViT.layers2.0.downsample.reduction": ("encoder", 2, "downsample", False),
        "encoder1.layer.conv3.conv": ("encoder", 0, "conv.pointwise", True),
        "encoder10.layer.conv1.conv": ("bottleneck", 5, "conv.spatial", True),
        "decoder5.transp_conv.conv": ("decoder", 4, "conv.transposed", False),
        "decoder1.conv_block.conv2.conv": ("decoder", 0, "conv.spatial", True),
        "out.conv.conv": ("head", 0, "conv.pointwise", False),
    }
    assert expected.items() <= places(SwinUNETR(), network).items()
    owner = network.get_submodule("swinViT.layers1.0.blocks.0.attn")
    assert isinstance(owner.relative_position_bias_table, nn.Parameter)
