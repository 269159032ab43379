"""The U-Net with any widths: where its layers lie, plain or residual."""

from __future__ import annotations

import pytest
import torch

from fseft.builtin.architectures.resunet import ResUNet, ResUNetConfig
from fseft.builtin.architectures.unet import UNet, UNetConfig


def build(**more):
    return UNet().build(
        in_channels=1,
        out_channels=3,
        config=UNetConfig(**{"channels": (4, 8, 8), "features": 4, **more}),
    )


def test_its_body_is_that_of_monai():
    from monai.networks.nets import UNet as Network

    network = UNet().build(in_channels=1, out_channels=3, config=UNetConfig())
    theirs = Network(
        3,
        1,
        16,
        (16, 32, 64, 128, 256),
        (2,) * 4,
        num_res_units=2,
        norm=("instance", {"affine": True}),
    )
    network.get_submodule("body").load_state_dict(theirs.state_dict())
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 1) == 4.8


def test_resunet_is_a_unet_with_other_defaults():
    widths = {"channels": (4, 8, 8), "features": 4}
    config = ResUNetConfig(**widths)
    network = ResUNet().build(in_channels=1, out_channels=3, config=config)
    assert network.state_dict().keys() == build().state_dict().keys()


def test_a_first_stride_of_one_starts_at_full_resolution():
    network, seen = build(strides=(1, 2)), []
    network.get_submodule("body.model.0").register_forward_hook(
        lambda *call: seen.append(call[-1].shape)
    )
    network(torch.zeros(1, 1, 8, 8, 8))
    assert seen == [(1, 4, 8, 8, 8)]


@pytest.mark.parametrize("units", [0, 2])
def test_without_a_norm_before_it_the_head_classifies_the_output_of_the_last_convolution(units):
    network = build(head_norm=False, num_res_units=units)
    image = torch.randn(2, 1, 16, 16, 16)
    features = network.get_submodule("body")(image)
    assert torch.equal(network(image), network.get_submodule("head")(features))
    targets = UNet().targets(network)
    last = [target for target in targets if target.name.startswith("body.model.2.")][-1]
    assert not last.followed_by_norm


@pytest.mark.parametrize(("norm", "entries"), [("instance", 2), ("batch", 5)])
def test_the_norm_is_selectable(norm, entries):
    network = build(norm=norm)
    assert len([name for name in network.state_dict() if name.startswith("norm.")]) == entries
    assert not [
        n
        for n in build(norm="instance", affine=False).state_dict()
        if ".adn.N." in n or n.startswith("norm.")
    ]


def test_layers_of_a_plain_network_have_their_parts_stages_and_roles(places):
    expected = {
        "body.model.0.conv": ("encoder", 0, "conv.spatial", True),
        "body.model.0.adn.A": ("encoder", 0, "act", False),
        "body.model.1.submodule.1.submodule.conv": ("bottleneck", 2, "conv.spatial", True),
        "body.model.1.submodule.2.conv": ("decoder", 1, "conv.transposed", True),
        "body.model.2.conv": ("decoder", 0, "conv.transposed", True),
        "norm": ("decoder", 0, "norm", False),
        "head": ("head", 0, "conv.pointwise", False),
    }
    assert expected.items() <= places(UNet(), build(num_res_units=0)).items()
