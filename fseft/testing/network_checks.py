"""Checks of architectures, one function each."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import torch
from torch import nn

from fseft.learn.networks.backbone import load_weights
from fseft.plugin import ArchitectureSpec
from fseft.registry import registry
from fseft.testing.lazy_imports import assert_listed_without_torch
from fseft.testing.method_harness import CLASSES, to_exact_precision

if TYPE_CHECKING:
    from collections.abc import Callable

    from fseft.testing.architectures import BuiltNetwork

KINDS = {
    "norm": nn.BatchNorm3d | nn.InstanceNorm3d | nn.GroupNorm | nn.LayerNorm,
    "attn.qkv": nn.Linear,
    "attn.proj": nn.Linear,
    "mlp.fc1": nn.Linear,
    "mlp.fc2": nn.Linear,
    "conv.spatial": nn.Conv3d,
    "conv.pointwise": nn.Conv3d,
    "conv.transposed": nn.ConvTranspose3d,
}
"""Layer type that methods expect for a role; other roles may be any module."""

ZERO_SLOPE = 1e-7
"""Fraction of the loss below which a slope in double precision counts as zero."""


def has_the_config_of_its_spec(built: BuiltNetwork) -> None:
    """The spec and the architecture name the same configuration, and every field is described."""
    config = built.architecture.config_class
    spec = registry().resolve("architecture", built.name).spec
    assert isinstance(spec, ArchitectureSpec)
    assert spec.config is config
    assert [name for name, field in config.model_fields.items() if not field.description] == []


@torch.no_grad()
def takes_the_smallest_patch(built: BuiltNetwork) -> None:
    """It accepts the minimum patch, in training too, where norms need two voxels per side."""
    network, patch = built.network(), built.architecture.minimum_patch
    for side, divisor in zip(patch, built.architecture.divisor, strict=True):
        assert side % divisor == 0
    x = built.x(patch)
    for mode in (True, False):
        logits = network.train(mode)(x)
        assert logits.shape == (1, CLASSES, *x.shape[2:])
        assert torch.isfinite(logits).all()


@torch.no_grad()
def takes_any_multiple_of_the_divisor(built: BuiltNetwork) -> None:
    """It accepts a patch whose side is one divisor longer than the minimum."""
    architecture = built.architecture
    for axis, divisor in enumerate(architecture.divisor):
        i, j, k = (
            side + divisor * (axis == other)
            for other, side in enumerate(architecture.minimum_patch)
        )
        x = built.x((i, j, k))
        assert built.network()(x).shape[2:] == x.shape[2:]


@torch.no_grad()
def treats_volumes_independently(built: BuiltNetwork) -> None:
    """The logits of a volume depend neither on its neighbours in the batch nor on the call."""
    network, batch = built.network(), built.x(batch=2)
    together = network(batch)
    assert torch.equal(network(batch), together)
    torch.testing.assert_close(network(batch[1:]), together[1:], rtol=1e-4, atol=1e-4)


def is_the_same_for_the_same_seed(built: BuiltNetwork) -> None:
    """All random numbers come from the global generator, which is seeded."""
    first, second = built.network().state_dict(), built.network().state_dict()
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert different == []


def can_be_saved_and_loaded(built: BuiltNetwork) -> None:
    """No tensor has two names, and another instance loads all of them."""
    state = built.network().state_dict()
    filled = [tensor for tensor in state.values() if tensor.numel()]
    assert len({tensor.data_ptr() for tensor in filled}) == len(filled)
    load_weights(built.network(), state, source=built.name)


@torch.no_grad()
def can_be_copied(built: BuiltNetwork) -> None:
    """A deep copy computes the same and shares no tensor."""
    network, x = built.network(), built.x()
    copy, expected = deepcopy(network), network(x)
    for parameter in network.parameters():
        parameter.zero_()
    assert torch.equal(copy(x), expected)


@torch.no_grad()
def has_a_head_that_classifies_the_features(built: BuiltNetwork) -> None:
    """The logits are a pointwise convolution of the features, at full resolution."""
    architecture, network, x = built.architecture, built.network(), built.x()
    features, head = architecture.features(network, x), architecture.head(network)
    assert isinstance(head, nn.Conv3d)
    assert head.kernel_size == (1, 1, 1)
    assert features.shape == (1, head.in_channels, *x.shape[2:])
    assert torch.equal(head(features), network(x))


@torch.no_grad()
def takes_another_head(built: BuiltNetwork) -> None:
    """Any module can replace the head, and is then the head."""
    architecture, network, x = built.architecture, built.network(), built.x()
    features = architecture.features(network, x)
    head: nn.Module = nn.Sequential(nn.Conv3d(features.shape[1], 5, 1))
    architecture.replace_head(network, head)
    assert architecture.head(network) is head
    assert torch.equal(network(x), head(features))
    targets = architecture.targets(network)
    assert [target.module for target in targets if target.part == "head"] == [head]


def has_a_target_for_every_parameter(built: BuiltNetwork) -> None:
    """Every parameter belongs to a target."""
    network = built.network()
    owned = {
        id(p) for target in built.architecture.targets(network) for p in target.module.parameters()
    }
    assert [name for name, p in network.named_parameters() if id(p) not in owned] == []


def has_valid_targets(built: BuiltNetwork) -> None:
    """Each target is a module of the network, has parameters, and is listed once."""
    network = built.network()
    targets = built.architecture.targets(network)
    assert len({target.name for target in targets}) == len(targets)
    for target in targets:
        assert network.get_submodule(target.name) is target.module, target.name
        assert any(True for _ in target.module.parameters()), target.name


def has_roles_that_match_the_layers(built: BuiltNetwork) -> None:
    """Layers have the type that their role implies; pointwise convolutions have a kernel of one."""
    for target in built.architecture.targets(built.network()):
        assert isinstance(target.module, KINDS.get(target.role, nn.Module)), target.name
        if target.role in ("conv.spatial", "conv.pointwise"):
            kernel = target.module.get_parameter("weight")[0, 0]
            assert (kernel.numel() == 1) is (target.role == "conv.pointwise"), target.name


def marks_layers_before_a_norm(built: BuiltNetwork) -> None:
    """`followed_by_norm` is true where the loss does not depend on the scale of the weight.

    With the scale s of the weight W, dL / d log s = <W, dL/dW> = 0.
    """
    network = to_exact_precision(built.network()).train()
    loss = network(built.x().double()).square().mean()
    loss.backward()
    marked, invariant = {}, {}
    for target in built.architecture.targets(network):
        if target.role.startswith("conv"):
            weight = target.module.get_parameter("weight")
            assert weight.grad is not None
            marked[target.name] = target.followed_by_norm
            slope = (weight * weight.grad).sum().abs()
            invariant[target.name] = bool(slope < ZERO_SLOPE * loss)
    assert marked == invariant


def has_a_gradient_for_every_parameter(built: BuiltNetwork) -> None:
    """Every parameter contributes to the loss in training."""
    network = built.network().train()
    loss = network(built.x()).square().mean()
    loss.backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name


def is_listed_without_torch(built: BuiltNetwork) -> None:
    """Listing the plugin that provides the architecture does not import torch."""
    assert_listed_without_torch("architecture", built.name)


CHECKS: tuple[Callable[[BuiltNetwork], None], ...] = (
    has_the_config_of_its_spec,
    takes_the_smallest_patch,
    takes_any_multiple_of_the_divisor,
    treats_volumes_independently,
    is_the_same_for_the_same_seed,
    can_be_saved_and_loaded,
    can_be_copied,
    has_a_head_that_classifies_the_features,
    takes_another_head,
    has_a_target_for_every_parameter,
    has_valid_targets,
    has_roles_that_match_the_layers,
    marks_layers_before_a_norm,
    has_a_gradient_for_every_parameter,
    is_listed_without_torch,
)
