"""VISTA3D: the names of its automatic branch, and rows that say what its class prompts say."""

from __future__ import annotations

import pytest
import torch
from monai.networks.nets.vista3d import vista3d132

from fseft.builtin.architectures.vista3d import VISTA3D, VISTA3DConfig, automatic_branch
from fseft.learn.networks.backbone import load_weights


def test_all_but_the_head_has_the_entries_of_public_checkpoints():
    with torch.device("meta"):
        network = VISTA3D().build(in_channels=1, out_channels=132, config=VISTA3DConfig())
    state = {
        name: tensor
        for name, tensor in network.state_dict().items()
        if not name.startswith("head.")
    }
    groups = {
        "image_encoder.encoder.": 83,
        "image_encoder.up_layers_auto.": 30,
        "class_head.image_post_mapping.": 4,
    }
    assert {
        group: len([name for name in state if name.startswith(group)]) for group in groups
    } == groups
    assert len(state) == sum(groups.values())
    shapes = {
        "image_encoder.encoder.conv_init.weight": (48, 1, 3, 3, 3),
        "image_encoder.encoder.layers.4.blocks.3.conv2.weight": (768, 768, 3, 3, 3),
        "image_encoder.up_layers_auto.0.upsample.deconv.weight": (768, 384, 3, 3, 3),
        "image_encoder.up_layers_auto.3.head.weight": (48, 48, 1, 1, 1),
        "class_head.image_post_mapping.1.layer.conv2.conv.weight": (48, 48, 3, 3, 3),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes


@torch.no_grad()
def test_head_rows_compute_the_logits_of_their_class_prompts():
    torch.manual_seed(0)
    theirs, classes = vista3d132(encoder_embed_dim=8).eval(), [1, 5, 132]
    network = (
        VISTA3D()
        .build(in_channels=1, out_channels=3, config=VISTA3DConfig(encoder_embed_dim=8))
        .eval()
    )
    load_weights(network, automatic_branch(theirs.state_dict(), classes), source="here")
    x = torch.randn(1, 1, 32, 32, 32)
    prompted = theirs(x, class_vector=torch.tensor(classes)[:, None]).transpose(0, 1)
    torch.testing.assert_close(network(x), prompted, rtol=1e-4, atol=1e-4)


@pytest.fixture
def network():
    return VISTA3D().build(
        in_channels=1,
        out_channels=3,
        config=VISTA3DConfig(encoder_embed_dim=4, blocks_down=(1, 1, 1)),
    )


def test_layers_have_their_parts_stages_and_roles(network, places):
    expected = {
        "image_encoder.encoder.conv_init": ("encoder", 0, "conv.spatial", False),
        "image_encoder.encoder.layers.1.blocks.0.conv1": ("encoder", 1, "conv.spatial", True),
        "image_encoder.encoder.layers.2.blocks.0.norm1": ("bottleneck", 2, "norm", False),
        "image_encoder.up_layers_auto.0.upsample.deconv": ("decoder", 1, "conv.transposed", False),
        "image_encoder.up_layers_auto.1.head": ("decoder", 0, "conv.pointwise", False),
        "class_head.image_post_mapping.0.layer.conv2.conv": ("decoder", 0, "conv.spatial", True),
        "head": ("head", 0, "conv.pointwise", False),
    }
    assert expected.items() <= places(VISTA3D(), network).items()
