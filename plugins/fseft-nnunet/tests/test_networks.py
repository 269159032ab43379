"""The networks compute the same as nnU-Net's classes, and keep the contract of architectures."""

from __future__ import annotations

import re

import pytest
import torch

from fseft.learn.networks.backbone import build_network, get_architecture, patch_limits
from fseft.learn.networks.roles import PatchLimits
from fseft.testing import TinyNetwork, architecture_checks, method_checks
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
def architecture(name):
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
    "network_plan", [containers.NETWORK, containers.residual()], ids=["plain", "residual"]
)
def test_the_network_computes_the_same_as_that_of_nnunet(network_plan, x):
    theirs = containers.a_network(network_plan).eval()
    name, hparams = plans._network({"architecture": network_plan})
    ours = build_network(
        get_architecture(name), in_channels=1, out_channels=3, hparams=hparams, seed=1
    ).eval()
    removed = (*models.TWICE, r"^decoder\.seg_layers\.0\.")
    one_head = {
        name: tensor
        for name, tensor in theirs.state_dict().items()
        if not any(re.search(pattern, name) for pattern in removed)
    }
    assert ours.state_dict().keys() == one_head.keys()
    ours.load_state_dict(one_head)
    assert torch.equal(ours(x), theirs(x)[0])


@pytest.mark.parametrize(
    "check",
    [
        check
        for name, hparams in VARIANTS.items()
        for check in architecture_checks(name, TinyNetwork(hparams, SHAPE))
    ],
)
def test_an_architecture_keeps_the_contract(check):
    check()


def test_parts_cover_all_levels(architecture, network):
    stages = {part: set() for part in ("encoder", "bottleneck", "decoder", "head")}
    for target in architecture.targets(network):
        stages[target.part].add(target.stage)
    (deepest,) = stages["bottleneck"]
    assert stages["encoder"] == stages["decoder"] == set(range(deepest))


@torch.no_grad()
@pytest.mark.parametrize("name", VARIANTS)
def test_the_smallest_patch_is_large_enough_for_the_defaults(name):
    architecture = get_architecture(name)
    small = {"width": 2} if name == "stunet" else {"features_per_stage": [2] * 6}
    network = build_network(architecture, in_channels=1, out_channels=2, hparams=small, seed=0)
    patch = architecture.minimum_patch
    logits = network(torch.zeros(1, 1, *patch))
    assert logits.shape == (1, 2, *patch)


@torch.no_grad()
@pytest.mark.parametrize("name", VARIANTS)
def test_the_strides_of_a_network_limit_its_patches(name):
    """As in nnU-Net's plans for thin volumes: 64 times in plane, 4 times along the slices."""
    in_plane, all_axes = [1, 2, 2], [2, 2, 2]
    strides = [in_plane, in_plane, in_plane, in_plane, all_axes, all_axes]
    small = {"width": 2, "strides": strides[1:]}
    if name != "stunet":
        small = {"features_per_stage": [2] * 7, "strides": [[1, 1, 1], *strides]}
    if name == "resenc":
        small["n_blocks_per_stage"] = 1
    architecture = get_architecture(name)
    limits = patch_limits(architecture, small)
    factor = 32 if name == "stunet" else 64
    assert limits == PatchLimits((4, factor, factor), (8, 2 * factor, 2 * factor))
    network = build_network(architecture, in_channels=1, out_channels=2, hparams=small, seed=0)
    logits = network.train()(torch.zeros(1, 1, *limits.minimum))
    assert logits.shape == (1, 2, *limits.minimum)


def checks():
    for name, hparams in VARIANTS.items():
        for method in ("linear-probe", "lora", "affine"):
            yield from method_checks(
                method, networks={name: TinyNetwork(hparams, (12, 16, 16))}, layers=()
            )


@pytest.mark.parametrize("check", checks())
def test_methods_keep_their_contract(check):
    check()


# --- STU-Net: names, shapes and sizes -----------------------------------------------------------


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


def test_the_public_plans_downsample_two_axes_four_times():
    network = build_network(
        get_architecture("stunet"), in_channels=1, out_channels=2, hparams={"width": 2}, seed=0
    )
    assert [level[0].conv1.stride for level in network.conv_blocks_context] == [
        (1, 1, 1),
        *[(2, 2, 2)] * 4,
        (1, 1, 2),
    ]
