"""What holds for every network: the head classifies the features, and every parameter has its role."""

from __future__ import annotations

import json
from copy import deepcopy

import pytest
import torch
from torch import nn

from fseft.builtin import plugin
from fseft.errors import FseftError
from fseft.learn.adaptation import adapt_network
from fseft.learn.backbone import architecture, build, load_weights
from fseft.registry import registry

TINY = {
    "dynunet": {"filters": (4, 4, 6, 6, 8, 8)},
    "mednext": {"init_filters": 4, "blocks": (1, 2, 1, 1)},
    "resunet": {"channels": (4, 8, 8), "features": 4},
    "segresnet": {"init_filters": 8, "blocks_down": (1, 2, 1, 1)},
    "segresnet-ds": {"init_filters": 4, "blocks_down": (1, 2, 1, 1, 1)},
    "suprem-unet": {"width": 4},
    "swinunetr": {"feature_size": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2), "window_size": 4},
    "unet": {"channels": (4, 8, 8), "features": 4},
    "vista3d": {"encoder_embed_dim": 4, "blocks_down": (1, 2, 1, 1, 1)},
}
VARIANTS = [
    *TINY.items(),
    ("dynunet", {**TINY["dynunet"], "res_block": True}),
    ("dynunet", {"filters": (4, 4, 8), "strides": ((1, 2, 2), 2), "kernel_size": ((1, 3, 3), 3, 3)}),
    ("segresnet-ds", {"init_filters": 4, "blocks_down": (1, 1), "norm": "instance"}),
    ("resunet", {"channels": (4, 8), "features": 4}),
    ("segresnet", {"init_filters": 8, "blocks_down": (1, 1, 1), "blocks_up": (1, 2)}),
    ("unet", {"channels": (4, 8, 8), "num_res_units": 0, "norm": "batch", "features": 4}),
    ("unet", {"channels": (4, 8, 8), "strides": (1, 2), "affine": False, "features": 4}),
]
METHODS = ("affine", "full", "linear-probe", "lora")
CONVOLUTIONAL = sorted(TINY.keys() - {"swinunetr"})


@pytest.fixture(params=VARIANTS, ids=[f"{name}-{n}" for n, (name, _) in enumerate(VARIANTS)])
def variant(request):
    return request.param


@pytest.fixture
def made(variant):
    return architecture(variant[0])


@pytest.fixture
def network(variant):
    return a_network(*variant)


@pytest.fixture
def x(made):
    return a_patch(made)


def a_network(name, hparams):
    """Built from what a model card holds."""
    hparams = json.loads(json.dumps(hparams))
    return build(architecture(name), in_channels=1, out_channels=3, hparams=hparams, seed=0).eval()


def a_patch(made, batch=1):
    return torch.randn((batch, 1, *made.minimum_patch), generator=torch.Generator().manual_seed(0))


def test_every_network_is_tested():
    assert TINY.keys() == {spec.name for spec in plugin.fseft_architectures()}


@torch.no_grad()
def test_the_smallest_patch_is_large_enough_also_in_training(made, network, x):
    assert min(m // d for m, d in zip(made.minimum_patch, made.divisor, strict=True)) >= 2
    for mode in (True, False):
        logits = network.train(mode)(x)
        assert logits.shape == (1, 3, *x.shape[2:])
        assert torch.isfinite(logits).all()


@torch.no_grad()
def test_a_side_may_be_any_multiple_of_the_divisor(made, network):
    i, j, k = made.minimum_patch
    assert network(torch.zeros(1, 1, i, j, k + made.divisor[2])).shape[2:] == (i, j, k + made.divisor[2])


@torch.no_grad()
def test_a_volume_does_not_depend_on_its_neighbours_nor_on_the_call(made, network):
    batch = a_patch(made, batch=2)
    together = network(batch)
    assert torch.equal(network(batch), together)
    torch.testing.assert_close(network(batch[1:]), together[1:], rtol=1e-4, atol=1e-4)


def test_the_same_seed_gives_the_same_network(variant, network):
    same = a_network(*variant).state_dict()
    assert all(torch.equal(tensor, same[name]) for name, tensor in network.state_dict().items())


def test_weights_go_into_another_network_each_once(variant, network):
    state = network.state_dict()
    assert len({tensor.data_ptr() for tensor in state.values()}) == len(state)
    load_weights(a_network(*variant), state, source="here")


@torch.no_grad()
def test_a_copy_is_a_network_of_its_own(made, network, x):
    copied, before = deepcopy(network), network(x)
    for parameter in network.parameters():
        parameter.zero_()
    assert torch.equal(copied(x), before)


@torch.no_grad()
def test_the_head_classifies_the_features(made, network, x):
    features, head = made.features(network, x), made.head(network)
    assert isinstance(head, nn.Conv3d)
    assert head.kernel_size == (1, 1, 1)
    assert features.shape == (1, head.in_channels, *x.shape[2:])
    assert torch.equal(head(features), network(x))


@torch.no_grad()
def test_another_head_may_take_the_place(made, network, x):
    before = made.features(network, x)
    head = nn.Sequential(nn.Conv3d(before.shape[1], 5, 1))
    made.replace_head(network, head)
    assert made.head(network) is head
    assert torch.equal(network(x), head(before))
    assert [target.module for target in made.targets(network) if target.part == "head"] == [head]


def test_every_parameter_belongs_to_a_target(made, network):
    owned = {id(p) for target in made.targets(network) for p in target.module.parameters()}
    assert [name for name, p in network.named_parameters() if id(p) not in owned] == []


def test_every_target_has_one_role_and_parameters_and_is_in_the_network(made, network):
    targets = made.targets(network)
    assert len({target.name for target in targets}) == len(targets)
    assert all(network.get_submodule(target.name) is target.module for target in targets)
    assert all(list(target.module.parameters()) for target in targets)


def test_roles_are_what_the_layers_are(made, network):
    kinds = {
        "norm": nn.BatchNorm3d | nn.InstanceNorm3d | nn.GroupNorm | nn.LayerNorm,
        "conv.spatial": nn.Conv3d,
        "conv.pointwise": nn.Conv3d,
        "conv.transposed": nn.ConvTranspose3d,
        "act": nn.PReLU,
    }
    for target in made.targets(network):
        assert isinstance(target.module, kinds.get(target.role, nn.Module))
        if target.role in ("conv.spatial", "conv.pointwise"):
            assert (max(target.module.kernel_size) == 1) is (target.role == "conv.pointwise")


def test_parts_cover_all_levels(made, network):
    stages = {part: set() for part in ("encoder", "bottleneck", "decoder", "head")}
    for target in made.targets(network):
        stages[target.part].add(target.stage)
    (deepest,) = stages["bottleneck"]
    assert stages["head"] == {0}
    assert stages["encoder"] == stages["decoder"] == set(range(deepest))


def test_a_norm_follows_exactly_where_the_targets_say_so(made, network, x):
    """Where one does, the loss does not change with the scale s of the weight W: dL / d log s = <W, dL/dW> = 0."""
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


def test_the_gradient_reaches_every_parameter(made, network, x):
    network.train()(x).square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


def test_a_deeper_network_than_patches_are_cut_for_is_refused():
    with pytest.raises(FseftError, match=r"shrinks the image by 32, which does not divide \(16, 16, 16\)"):
        a_network("unet", {"channels": (4,) * 6})


# --- methods ------------------------------------------------------------------------------------------------


def method(name):
    return registry().create("method", name, registry().method(name).config())


@torch.no_grad()
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("which", TINY)
def test_a_method_changes_nothing_before_training(which, name):
    made, network = architecture(which), a_network(which, TINY[which])
    x = a_patch(made)
    before = network(x)
    adapted = adapt_network(made, network, method(name), decoder="frozen", seed=1)
    torch.testing.assert_close(adapted.network(x), before, rtol=0, atol=1e-5)
    assert adapted.trained()


@torch.no_grad()
@pytest.mark.parametrize("which", TINY)
def test_a_low_rank_decoder_changes_nothing_before_training(which):
    made, network = architecture(which), a_network(which, TINY[which])
    x = a_patch(made)
    before = network(x)
    adapted = adapt_network(made, network, method("linear-probe"), decoder="low-rank", seed=1)
    torch.testing.assert_close(adapted.network(x), before, rtol=0, atol=1e-5)
    assert any("parametrizations" in name for name, _ in adapted.trained())


@pytest.mark.parametrize("which", CONVOLUTIONAL)
def test_a_network_without_transformer_blocks_is_told(which):
    with pytest.raises(FseftError, match="'adaptformer' needs transformer blocks, which this architecture"):
        method("adaptformer").select(architecture(which), a_network(which, TINY[which]))


def test_a_network_whose_norms_have_no_parameters_is_told():
    network = a_network("unet", {**TINY["unet"], "affine": False})
    with pytest.raises(FseftError, match="'affine' needs norm layers with parameters, which this architecture"):
        method("affine").select(architecture("unet"), network)
