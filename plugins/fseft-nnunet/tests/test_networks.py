"""The networks compute what nnU-Net's classes do, from the tensors of its checkpoints, and know their layers."""

from __future__ import annotations

import re
from copy import deepcopy

import pytest
import torch
from torch import nn

from fseft.errors import FseftError
from fseft.learn.networks.backbone import build_network, get_architecture
from fseft.testing import TinyNetwork, method_checks
from fseft_nnunet import models, plans

from . import containers

PLAIN = {
    "features_per_stage": [4, 6, 8],
    "kernel_sizes": containers.KERNELS,
    "strides": containers.STRIDES,
    "n_conv_per_stage": [1, 2, 1],
    "n_conv_per_stage_decoder": [1, 2],
}
RESENC = {
    **{k: v for k, v in PLAIN.items() if k != "n_conv_per_stage"},
    "n_blocks_per_stage": [1, 2, 1],
}
STUNET = {"width": 4, "blocks": 2, "strides": [[1, 2, 2], 2, 1, 1, 1]}
VARIANTS = {"plainconv": PLAIN, "resenc": RESENC, "stunet": STUNET}
SHAPE = (8, 16, 16)


@pytest.fixture(params=VARIANTS)
def name(request):
    return request.param


@pytest.fixture
def made(name):
    return get_architecture(name)


@pytest.fixture
def network(name):
    return build_network(
        get_architecture(name), in_channels=1, out_channels=3, hparams=VARIANTS[name], seed=0
    ).eval()


@pytest.fixture
def x():
    return torch.randn(1, 1, *SHAPE, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
@pytest.mark.parametrize(
    "asked", [containers.NETWORK, containers.residual()], ids=["plain", "residual"]
)
def test_the_function_is_that_of_nn_unet(asked, x):
    theirs = containers.a_network(asked).eval()
    name, hparams = plans._network({"architecture": asked})
    ours = build_network(
        get_architecture(name), in_channels=1, out_channels=3, hparams=hparams, seed=1
    ).eval()
    kept = {
        k: t
        for k, t in theirs.state_dict().items()
        if not any(re.search(p, k) for p in models.TWICE)
    }
    one_head = {k: t for k, t in kept.items() if not k.startswith("decoder.seg_layers.0.")}
    assert ours.state_dict().keys() == one_head.keys()
    ours.load_state_dict(one_head)
    assert torch.equal(ours(x), theirs(x)[0])


@torch.no_grad()
def test_the_head_classifies_the_features(made, network, x):
    features, head = made.features(network, x), made.head(network)
    assert torch.equal(head(features), network(x))
    made.replace_head(network, nn.Sequential(nn.Conv3d(head.in_channels, 5, 1)))
    assert network(x).shape == (1, 5, *SHAPE)


def test_every_tensor_is_there_once_and_learns(made, network, x):
    state = network.state_dict()
    assert len({tensor.data_ptr() for tensor in state.values()}) == len(state)
    owned = {id(p) for target in made.targets(network) for p in target.module.parameters()}
    network.train()(x).square().mean().backward()
    assert [n for n, p in network.named_parameters() if id(p) not in owned or p.grad is None] == []


@torch.no_grad()
def test_a_copy_is_a_network_of_its_own(network, x):
    copied, before = deepcopy(network), network(x)
    for parameter in network.parameters():
        parameter.zero_()
    assert torch.equal(copied(x), before)


def test_a_norm_follows_exactly_where_the_targets_say_so(made, network, x):
    """Where one does, the loss does not change with the scale of the weight."""
    network.double().train()
    for module in network.modules():
        if hasattr(module, "eps"):
            module.eps = 1e-12
    loss = network(x.double()).square().mean()
    loss.backward()
    for target in made.targets(network):
        if target.role.startswith("conv"):
            slope = (target.module.weight * target.module.weight.grad).sum().abs() / loss
            assert bool(slope < 1e-7) is target.followed_by_norm, target.name


def test_parts_cover_all_levels(made, network):
    stages = {part: set() for part in ("encoder", "bottleneck", "decoder", "head")}
    for target in made.targets(network):
        stages[target.part].add(target.stage)
    (deepest,) = stages["bottleneck"]
    assert stages["encoder"] == stages["decoder"] == set(range(deepest))


@torch.no_grad()
@pytest.mark.parametrize("name", VARIANTS)
def test_the_smallest_patch_is_large_enough_for_the_defaults(name):
    made = get_architecture(name)
    small = {"width": 2} if name == "stunet" else {"features_per_stage": [2] * 6}
    network = build_network(made, in_channels=1, out_channels=2, hparams=small, seed=0)
    assert network(torch.zeros(1, 1, *made.minimum_patch)).shape == (1, 2, *made.minimum_patch)


def test_a_deeper_network_than_patches_are_cut_for_is_refused(made, name):
    deep = {"strides": [2] * 6} if name != "stunet" else {"strides": [2, 2, 2, 2, 4]}
    with pytest.raises(FseftError, match="downsamples by 64"):
        build_network(
            made, in_channels=1, out_channels=2, hparams={**VARIANTS[name], **deep}, seed=0
        )


def checks():
    for name, hparams in VARIANTS.items():
        for method in ("linear-probe", "lora", "affine"):
            yield from method_checks(
                method, toys={name: TinyNetwork(hparams, (12, 16, 16))}, layers=()
            )


@pytest.mark.parametrize("check", checks())
def test_methods_keep_their_contract(check):
    check()


# --- STU-Net: names, shapes and sizes ---------------------------------------------------------------------------


@pytest.mark.parametrize("spec", models.STUNETS, ids=lambda spec: spec.name)
def test_the_sizes_are_the_published_ones(spec):
    card = spec.card
    with torch.device("meta"):
        network = build_network(
            get_architecture("stunet"),
            in_channels=1,
            out_channels=105,
            hparams=card.hparams,
            seed=0,
        )
    assert sum(p.numel() for p in network.parameters()) == card.parameters
    entries = {"s": 130, "b": 130, "l": 218, "h": 306}[card.name[-1]]
    assert (
        len(network.state_dict()) == entries - 8
    )  # weight and bias of four heads of deep supervision


def test_the_public_plans_shrink_two_axes_four_times_only():
    network = build_network(
        get_architecture("stunet"), in_channels=1, out_channels=2, hparams={"width": 2}, seed=0
    )
    assert [level[0].conv1.stride for level in network.conv_blocks_context] == [
        (1, 1, 1),
        *[(2, 2, 2)] * 4,
        (1, 1, 2),
    ]
