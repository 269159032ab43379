"""Built-in architectures pass the checks for plugin authors, and have the parts of a U-Net."""

from __future__ import annotations

import pytest
from torch import nn

from fseft.errors import FseftError
from fseft.learn.networks.adapter_module import AdapterModule
from fseft.learn.networks.backbone import build_network, get_architecture
from fseft.registry import registry
from fseft.testing import TINY_NETWORKS, TinyNetwork, architecture_checks

CUBE = (16, 16, 16)
UNET = {"channels": (4, 8, 8), "features": 4}
VARIANTS = [
    *TINY_NETWORKS.items(),
    # As deep as patches are cut for, so that the smallest patch is put to the test.
    ("dynunet", TinyNetwork({"filters": (4, 4, 6, 6, 8, 8)}, (64, 64, 64))),
    ("mednext", TinyNetwork({"init_filters": 4, "blocks": (1, 2, 1, 1)}, (32, 32, 32))),
    ("resunet", TinyNetwork({"channels": (4, 4, 6, 6, 8), "features": 4}, (32, 32, 32))),
    ("segresnet", TinyNetwork({"init_filters": 8, "blocks_down": (1, 2, 1, 1)}, CUBE)),
    (
        "segresnet-ds",
        TinyNetwork({"init_filters": 4, "blocks_down": (1, 2, 1, 1, 1)}, (32, 32, 32)),
    ),
    ("unet", TinyNetwork({"channels": (4, 4, 6, 6, 8), "features": 4}, (32, 32, 32))),
    (
        "vista3d",
        TinyNetwork({"encoder_embed_dim": 4, "blocks_down": (1, 2, 1, 1, 1)}, (32, 32, 32)),
    ),
    # Of other kinds.
    ("anatomix", TinyNetwork({"width": 4, "levels": 2, "variant": "instance"}, CUBE)),
    ("dynunet", TinyNetwork({"filters": (4, 6, 8), "res_block": True}, CUBE)),
    (
        "dynunet",
        TinyNetwork(
            {"filters": (4, 4, 8), "strides": ((1, 2, 2), 2), "kernel_size": ((1, 3, 3), 3, 3)},
            CUBE,
        ),
    ),
    ("resunet", TinyNetwork({"channels": (4, 8), "features": 4}, CUBE)),
    (
        "segresnet",
        TinyNetwork({"init_filters": 8, "blocks_down": (1, 1, 1), "blocks_up": (1, 2)}, CUBE),
    ),
    (
        "segresnet-ds",
        TinyNetwork({"init_filters": 4, "blocks_down": (1, 1), "norm": "instance"}, CUBE),
    ),
    ("unet", TinyNetwork({**UNET, "num_res_units": 0, "norm": "batch"}, CUBE)),
    ("unet", TinyNetwork({**UNET, "strides": (1, 2), "affine": False}, CUBE)),
]


def a_network(name, hparams):
    return build_network(
        get_architecture(name), in_channels=1, out_channels=3, hparams=hparams, seed=0
    )


def contract(variants):
    return [check for name, tiny in variants for check in architecture_checks(name, tiny)]


FAST = ("resunet", "segresnet", "suprem-unet", "unet")


@pytest.mark.parametrize("check", contract((name, TINY_NETWORKS[name]) for name in FAST))
def test_a_network_keeps_the_contract(check):
    check()


@pytest.mark.full
@pytest.mark.parametrize("check", contract(VARIANTS))
def test_every_variant_of_a_network_keeps_the_contract(check):
    check()


@pytest.mark.parametrize("name", TINY_NETWORKS)
def test_the_smallest_patch_leaves_two_voxels_for_the_deepest_norm(name):
    architecture = get_architecture(name)
    for side, divisor in zip(architecture.minimum_patch, architecture.divisor, strict=True):
        assert side // divisor >= 2


@pytest.mark.parametrize(("name", "toy"), VARIANTS)
def test_parts_cover_all_levels(name, toy):
    stages = {part: set() for part in ("encoder", "bottleneck", "decoder", "head")}
    for target in get_architecture(name).targets(a_network(name, toy.hparams)):
        stages[target.part].add(target.stage)
    (deepest,) = stages["bottleneck"]
    assert stages["head"] == {0}
    assert stages["encoder"] == stages["decoder"] == set(range(deepest))


@pytest.mark.parametrize(("name", "toy"), TINY_NETWORKS.items(), ids=TINY_NETWORKS.keys())
def test_modules_added_by_a_method_are_not_targets(name, toy):
    arch = get_architecture(name)
    network = build_network(arch, in_channels=1, out_channels=2, hparams=toy.hparams, seed=0)
    names = [target.name for target in arch.targets(network)]
    for target in arch.targets(network):
        added = AdapterModule()
        added.add_module("conv", nn.Conv3d(2, 2, 3))
        target.module.add_module("added", added)
    assert [target.name for target in arch.targets(network)] == names


def test_a_network_deeper_than_its_divisor_is_rejected():
    with pytest.raises(
        FseftError, match=r"downsamples by 32, which does not divide \(16, 16, 16\)"
    ):
        a_network("unet", {"channels": (4,) * 6})


def method(name):
    return registry().create("method", name, registry().method(name).config())


@pytest.mark.parametrize("name", sorted(TINY_NETWORKS.keys() - {"swinunetr"}))
def test_a_method_for_transformers_rejects_a_convolutional_network(name):
    with pytest.raises(
        FseftError, match="'adaptformer' requires transformer blocks, which this network lacks"
    ):
        method("adaptformer").select(
            get_architecture(name), a_network(name, TINY_NETWORKS[name].hparams)
        )


def test_a_method_for_norms_rejects_norms_without_parameters():
    network = a_network("unet", {**UNET, "affine": False})
    with pytest.raises(FseftError, match="'affine' requires norm layers with parameters"):
        method("affine").select(get_architecture("unet"), network)
