"""How weights lie in memory changes no result."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn

from fseft.learn.training.memory_format import to_device


def test_a_network_computes_the_same_wherever_its_weights_lie():
    torch.manual_seed(0)
    usual = nn.Sequential(
        nn.Conv3d(1, 8, 3, padding=1),
        nn.InstanceNorm3d(8),
        nn.ReLU(),
        nn.ConvTranspose3d(8, 3, 2, 2),
    )
    last = to_device(deepcopy(usual), "cpu")
    assert last[0].weight.is_contiguous(memory_format=torch.channels_last_3d)
    images = torch.randn(2, 1, 8, 8, 8)
    torch.testing.assert_close(last(images), usual(images))
    for network in (usual, last):
        network(images).square().sum().backward()
    for ours, theirs in zip(last.parameters(), usual.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4)


def test_a_network_that_has_predicted_can_be_trained():
    network = nn.Conv3d(1, 4, 3)
    with torch.inference_mode():
        to_device(network, "cpu")
    network(torch.randn(1, 1, 4, 4, 4)).sum().backward()
    assert network.weight.grad is not None
