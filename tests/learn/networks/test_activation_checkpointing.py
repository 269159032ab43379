"""Activation checkpointing: blocks do not overlap, and recomputing them changes only the memory."""

from __future__ import annotations

import pytest
import torch

from fseft.learn.networks.activation_checkpointing import (
    checkpoint_activations,
    checkpointable_blocks,
)
from fseft.learn.networks.backbone import build_network, get_architecture
from fseft.testing.tiny_networks import TINY_NETWORKS

SOME = ("resunet", "swinunetr", "mednext", "segresnet")


def a_network(name):
    architecture = get_architecture(name)
    return architecture, build_network(
        architecture,
        in_channels=1,
        out_channels=2,
        hparams=dict(TINY_NETWORKS[name].hparams),
        seed=0,
    )


FLAT = {"anatomix"}
"""Networks of a single list of layers, which is not divided into blocks."""


@pytest.mark.parametrize("name", sorted(TINY_NETWORKS.keys() - FLAT))
def test_blocks_do_not_overlap(name):
    architecture, network = a_network(name)
    blocks = checkpointable_blocks(architecture, network)
    assert len(blocks) > 1
    inner = [id(module) for block in blocks for module in block.modules()]
    assert len(inner) == len(set(inner))


def kept_bytes(network, x):
    """Return the bytes that autograd saves in a forward pass, and the gradients."""
    kept = {}

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = network(x).square().mean()
    loss.backward()
    return sum(kept.values()), [p.grad.clone() for p in network.parameters() if p.grad is not None]


@pytest.mark.parametrize("name", SOME)
def test_checkpointing_saves_memory_and_keeps_the_gradients(name):
    x = torch.randn(1, 1, *TINY_NETWORKS[name].shape, generator=torch.Generator().manual_seed(0))
    architecture, network = a_network(name)
    bytes_without, expected = kept_bytes(network, x)
    network.zero_grad()
    checkpoint_activations(checkpointable_blocks(architecture, network))
    bytes_with, gradients = kept_bytes(network, x)
    assert bytes_with < bytes_without
    for a, b in zip(gradients, expected, strict=True):
        torch.testing.assert_close(a, b)
