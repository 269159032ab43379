"""What every architecture must keep, one function each: the head classifies the features, every layer has its role."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import torch
from torch import nn

from fseft.learn.networks.backbone import load_weights
from fseft.registry import registry
from fseft.testing.lazy_imports import assert_listed_without_torch
from fseft.testing.method_harness import CLASSES, exact

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
"""What methods take a layer of this role for; other roles may be any module."""

NO_SLOPE = 1e-7
"""A slope in double precision that is smaller than this part of the loss is none."""


def has_the_config_of_its_spec(built: BuiltNetwork) -> None:
    """The spec and the architecture name the same configuration, and every field is described."""
    config = built.architecture.config_class
    assert registry().resolve("architecture", built.name).spec.config is config
    assert [name for name, field in config.model_fields.items() if not field.description] == []


@torch.no_grad()
def takes_the_smallest_patch(built: BuiltNetwork) -> None:
    """Also in training, when the norms look at the deepest level."""
    network, made = built.network(), built.architecture
    assert [m % d for m, d in zip(made.minimum_patch, made.divisor, strict=True)] == [0, 0, 0]
    x = built.x(made.minimum_patch)
    for mode in (True, False):
        logits = network.train(mode)(x)
        assert logits.shape == (1, CLASSES, *x.shape[2:])
        assert torch.isfinite(logits).all()


@torch.no_grad()
def takes_any_multiple_of_the_divisor(built: BuiltNetwork) -> None:
    """A side may be longer by one divisor."""
    made = built.architecture
    for axis, more in enumerate(made.divisor):
        sides = list(made.minimum_patch)
        sides[axis] += more
        x = built.x((sides[0], sides[1], sides[2]))
        assert built.network()(x).shape[2:] == x.shape[2:]


@torch.no_grad()
def keeps_volumes_apart(built: BuiltNetwork) -> None:
    """A volume's logits depend neither on its neighbours in the batch nor on the call."""
    network, batch = built.network(), built.x(batch=2)
    together = network(batch)
    assert torch.equal(network(batch), together)
    torch.testing.assert_close(network(batch[1:]), together[1:], rtol=1e-4, atol=1e-4)


def is_the_same_for_the_same_seed(built: BuiltNetwork) -> None:
    """All that is drawn comes from the global generator, which is seeded."""
    one, other = built.network().state_dict(), built.network().state_dict()
    assert one.keys() == other.keys()
    assert {name for name, tensor in one.items() if not torch.equal(tensor, other[name])} == set()


def can_be_saved_and_loaded(built: BuiltNetwork) -> None:
    """No tensor has two names, and another network takes them all."""
    state = built.network().state_dict()
    filled = [tensor for tensor in state.values() if tensor.numel()]
    assert len({tensor.data_ptr() for tensor in filled}) == len(filled)
    load_weights(built.network(), state, source=built.name)


@torch.no_grad()
def can_be_copied(built: BuiltNetwork) -> None:
    """A deep copy does the same and shares nothing."""
    network, x = built.network(), built.x()
    copied, before = deepcopy(network), network(x)
    for parameter in network.parameters():
        parameter.zero_()
    assert torch.equal(copied(x), before)


@torch.no_grad()
def has_a_head_that_classifies_the_features(built: BuiltNetwork) -> None:
    """The logits are the pointwise head of the features, at full resolution."""
    made, network, x = built.architecture, built.network(), built.x()
    features, head = made.features(network, x), made.head(network)
    assert isinstance(head, nn.Conv3d)
    assert head.kernel_size == (1, 1, 1)
    assert features.shape == (1, head.in_channels, *x.shape[2:])
    assert torch.equal(head(features), network(x))


@torch.no_grad()
def takes_another_head(built: BuiltNetwork) -> None:
    """Any module may take the head's place; it is then the head."""
    made, network, x = built.architecture, built.network(), built.x()
    before = made.features(network, x)
    head: nn.Module = nn.Sequential(nn.Conv3d(before.shape[1], 5, 1))
    made.replace_head(network, head)
    assert made.head(network) is head
    assert torch.equal(network(x), head(before))
    assert [target.module for target in made.targets(network) if target.part == "head"] == [head]


def gives_every_parameter_a_target(built: BuiltNetwork) -> None:
    """No parameter is out of reach."""
    network = built.network()
    owned = {
        id(p) for target in built.architecture.targets(network) for p in target.module.parameters()
    }
    assert [name for name, p in network.named_parameters() if id(p) not in owned] == []


def names_its_targets(built: BuiltNetwork) -> None:
    """Each is a module of the network, has parameters, and is there once."""
    network = built.network()
    targets = built.architecture.targets(network)
    assert len({target.name for target in targets}) == len(targets)
    assert [t.name for t in targets if network.get_submodule(t.name) is not t.module] == []
    assert [t.name for t in targets if next(t.module.parameters(), None) is None] == []


def gives_layers_the_role_that_they_have(built: BuiltNetwork) -> None:
    """A layer is what methods take it for, and pointwise is what has a kernel of one."""
    for target in built.architecture.targets(built.network()):
        assert isinstance(target.module, KINDS.get(target.role, nn.Module)), target.name
        if target.role in ("conv.spatial", "conv.pointwise"):
            kernel = target.module.get_parameter("weight")[0, 0]
            assert (kernel.numel() == 1) is (target.role == "conv.pointwise"), target.name


def says_where_a_norm_follows(built: BuiltNetwork) -> None:
    """Where one does, the loss does not change with the scale s of the weight W: dL / d log s = <W, dL/dW> = 0."""
    network = exact(built.network()).train()
    loss = network(built.x().double()).square().mean()
    loss.backward()
    told, found = {}, {}
    for target in built.architecture.targets(network):
        if target.role.startswith("conv"):
            weight = target.module.get_parameter("weight")
            assert weight.grad is not None
            told[target.name] = target.followed_by_norm
            found[target.name] = bool((weight * weight.grad).sum().abs() < NO_SLOPE * loss)
    assert told == found


def gives_every_parameter_a_gradient(built: BuiltNetwork) -> None:
    """In training nothing is cut off."""
    network = built.network().train()
    network(built.x()).square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


def loads_no_torch_before_it_is_chosen(built: BuiltNetwork) -> None:
    """The plugin that offers the architecture is listed without torch."""
    assert_listed_without_torch("architecture", built.name)


CHECKS: tuple[Callable[[BuiltNetwork], None], ...] = (
    has_the_config_of_its_spec,
    takes_the_smallest_patch,
    takes_any_multiple_of_the_divisor,
    keeps_volumes_apart,
    is_the_same_for_the_same_seed,
    can_be_saved_and_loaded,
    can_be_copied,
    has_a_head_that_classifies_the_features,
    takes_another_head,
    gives_every_parameter_a_target,
    names_its_targets,
    gives_layers_the_role_that_they_have,
    says_where_a_norm_follows,
    gives_every_parameter_a_gradient,
    loads_no_torch_before_it_is_chosen,
)
