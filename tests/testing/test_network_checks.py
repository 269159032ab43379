"""The checks of architectures detect each violation."""

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
    """A correct architecture, of which subclasses break one property each."""

    change = staticmethod(lambda _: None)

    def build(self, **more):
        network = super().build(**more)
        self.change(network)
        return network


class ClaimsTooSmallAMinimumPatch(Flawed):
    divisor = minimum_patch = (4, 4, 4)


class ClaimsTooSmallADivisor(Flawed):
    divisor = (2, 2, 2)

    def require_divisible(self, reduction):
        pass


class NormalisesOverTheBatch(Flawed):
    def change(self, network):
        network.norm = nn.BatchNorm3d(4, track_running_stats=False)


class UsesAnUnseededGenerator(Flawed):
    def change(self, network):
        nn.init.normal_(network.head.weight, generator=torch.Generator().manual_seed(next(SEEDS)))


class NamesATensorTwice(Flawed):
    def change(self, network):
        network.again = network.head.bias


class SmoothsTheLogits(Flawed):
    def change(self, network):
        network.smooth = nn.AvgPool3d(3, stride=1, padding=1)


class IgnoresTheNewHead(Flawed):
    def replace_head(self, network, head):
        pass


class ListsTheHeadOnly(Flawed):
    def targets(self, network):
        return super().targets(network)[-1:]


class ListsTheHeadTwice(Flawed):
    def targets(self, network):
        return [*super().targets(network), super().targets(network)[-1]]


class ConfusesSpatialAndPointwise(Flawed):
    def role(self, name, module):
        role = super().role(name, module)
        return "conv.pointwise" if role == "conv.spatial" else role


class MarksNoLayerBeforeANorm(Flawed):
    followed_by_norm = staticmethod(lambda *_: False)


class HasAnUnusedLayer(Flawed):
    def change(self, network):
        network.head.unused = nn.Conv3d(1, 1, 1)


def built_of(flawed):
    built = BuiltNetwork("resunet", TINY_NETWORKS["resunet"])
    vars(built)["architecture"] = flawed()  # where the property keeps it
    return built


@pytest.mark.parametrize("check", network_checks.CHECKS)
def test_a_correct_architecture_passes(check):
    check(built_of(Flawed))


@pytest.mark.parametrize(
    ("flawed", "check"),
    [
        (ClaimsTooSmallAMinimumPatch, network_checks.takes_the_smallest_patch),
        (ClaimsTooSmallADivisor, network_checks.takes_any_multiple_of_the_divisor),
        (NormalisesOverTheBatch, network_checks.treats_volumes_independently),
        (UsesAnUnseededGenerator, network_checks.is_the_same_for_the_same_seed),
        (NamesATensorTwice, network_checks.can_be_saved_and_loaded),
        (SmoothsTheLogits, network_checks.has_a_head_that_classifies_the_features),
        (IgnoresTheNewHead, network_checks.takes_another_head),
        (ListsTheHeadOnly, network_checks.has_a_target_for_every_parameter),
        (ListsTheHeadTwice, network_checks.has_valid_targets),
        (ConfusesSpatialAndPointwise, network_checks.has_roles_that_match_the_layers),
        (MarksNoLayerBeforeANorm, network_checks.marks_layers_before_a_norm),
        (HasAnUnusedLayer, network_checks.has_a_gradient_for_every_parameter),
    ],
)
def test_a_violation_is_detected(flawed, check):
    with pytest.raises((AssertionError, RuntimeError, ValueError)):
        check(built_of(flawed))
