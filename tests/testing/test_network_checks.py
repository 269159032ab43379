"""The checks of architectures find what they are there to find."""

from __future__ import annotations

from itertools import count

import pytest
import torch
from torch import nn

from fseft.builtin.architectures.resunet import ResUNet
from fseft.testing import TINY_NETWORKS, network_checks
from fseft.testing.architectures import BuiltNetwork

SEEDS = count()


class Flawed(ResUNet):
    """An architecture that is right but for what the subclasses do, most of them to the network."""

    change = staticmethod(lambda _: None)

    def build(self, **more):
        network = super().build(**more)
        self.change(network)
        return network


class TakesTooSmallAPatch(Flawed):
    divisor = minimum_patch = (4, 4, 4)


class TakesTooSmallADivisor(Flawed):
    divisor = (2, 2, 2)

    def require_divisible(self, reduction):
        pass


class LooksAtTheBatch(Flawed):
    def change(self, network):
        network.norm = nn.BatchNorm3d(4, track_running_stats=False)


class DrawsByItself(Flawed):
    def change(self, network):
        nn.init.normal_(network.head.weight, generator=torch.Generator().manual_seed(next(SEEDS)))


class NamesATensorTwice(Flawed):
    def change(self, network):
        network.again = network.head.bias


class SmoothsTheLogits(Flawed):
    def change(self, network):
        network.smooth = nn.AvgPool3d(3, stride=1, padding=1)


class KeepsItsHead(Flawed):
    def replace_head(self, network, head):
        pass


class KnowsItsHeadOnly(Flawed):
    def targets(self, network):
        return super().targets(network)[-1:]


class NamesAHeadTwice(Flawed):
    def targets(self, network):
        return [*super().targets(network), super().targets(network)[-1]]


class TakesSpatialForPointwise(Flawed):
    def role(self, name, module):
        role = super().role(name, module)
        return "conv.pointwise" if role == "conv.spatial" else role


class SaysThatNoNormFollows(Flawed):
    followed_by_norm = staticmethod(lambda *_: False)


class HasALayerWithoutUse(Flawed):
    def change(self, network):
        network.head.unused = nn.Conv3d(1, 1, 1)


def built_of(flawed):
    built = BuiltNetwork("resunet", TINY_NETWORKS["resunet"])
    vars(built)["architecture"] = flawed()  # where the property keeps it
    return built


@pytest.mark.parametrize("check", network_checks.CHECKS)
def test_an_architecture_that_is_right_passes(check):
    check(built_of(Flawed))


@pytest.mark.parametrize(
    ("flawed", "check"),
    [
        (TakesTooSmallAPatch, network_checks.takes_the_smallest_patch),
        (TakesTooSmallADivisor, network_checks.takes_any_multiple_of_the_divisor),
        (LooksAtTheBatch, network_checks.keeps_volumes_apart),
        (DrawsByItself, network_checks.is_the_same_for_the_same_seed),
        (NamesATensorTwice, network_checks.can_be_saved_and_loaded),
        (SmoothsTheLogits, network_checks.has_a_head_that_classifies_the_features),
        (KeepsItsHead, network_checks.takes_another_head),
        (KnowsItsHeadOnly, network_checks.gives_every_parameter_a_target),
        (NamesAHeadTwice, network_checks.names_its_targets),
        (TakesSpatialForPointwise, network_checks.gives_layers_the_role_that_they_have),
        (SaysThatNoNormFollows, network_checks.says_where_a_norm_follows),
        (HasALayerWithoutUse, network_checks.gives_every_parameter_a_gradient),
    ],
)
def test_a_flaw_is_found(flawed, check):
    with pytest.raises((AssertionError, RuntimeError, ValueError)):
        check(built_of(flawed))
