"""Blocks do not overlap, and computing them again changes the memory and nothing else."""

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
    made = get_architecture(name)
    return made, build_network(
        made, in_channels=1, out_channels=2, hparams=dict(TINY_NETWORKS[name].hparams), seed=0
    )


@pytest.mark.parametrize("name", sorted(TINY_NETWORKS))
def test_no_block_lies_in_another(name):
    made, network = a_network(name)
    found = checkpointable_blocks(made, network)
    assert len(found) > 1
    inner = [id(module) for block in found for module in block.modules()]
    assert len(inner) == len(set(inner))


def kept_bytes(network, x):
    """What autograd keeps of a pass, and the gradients."""
    kept = {}

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = network(x).square().mean()
    loss.backward()
    return sum(kept.values()), [p.grad.clone() for p in network.parameters() if p.grad is not None]


@pytest.mark.parametrize("name", SOME)
def test_what_is_computed_again_is_not_kept_and_gives_the_same_gradients(name):
    x = torch.randn(1, 1, *TINY_NETWORKS[name].shape, generator=torch.Generator().manual_seed(0))
    made, network = a_network(name)
    before, expected = kept_bytes(network, x)
    network.zero_grad()
    checkpoint_activations(checkpointable_blocks(made, network))
    after, gradients = kept_bytes(network, x)
    assert after < before
    for a, b in zip(gradients, expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", sorted(TINY_NETWORKS))
def test_every_parameter_has_a_gradient_as_ranks_that_train_together_need(name):
    _, network = a_network(name)
    network(torch.randn(1, 1, *TINY_NETWORKS[name].shape)).mean().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []
