"""The adapted network: what it remembers, and what it gives back."""

from __future__ import annotations

import torch
from torch import nn

from fseft.learn.method import Adapted


@torch.no_grad()
def test_switched_off_the_batch_statistics_are_the_old_ones():
    torch.manual_seed(0)
    x, network = torch.randn(2, 1, 4, 4, 4), nn.Sequential(nn.Conv3d(1, 2, 1), nn.BatchNorm3d(2))
    adapted = Adapted(network, learning_rate=0.1, train_mode=True)
    adapted.remember()
    base = network.eval()(x)
    network.train()(x)
    trained = network.eval()(x)
    assert not torch.equal(trained, base)
    with adapted.disabled():
        assert torch.equal(network(x), base)
    assert torch.equal(network(x), trained)


@torch.no_grad()
def test_a_frozen_network_has_no_batch_statistics_to_save():
    network = nn.Sequential(nn.Conv3d(1, 2, 1), nn.BatchNorm3d(2)).requires_grad_(False)
    for train_mode, saved in ((False, set()), (True, {"1.running_mean", "1.running_var", "1.num_batches_tracked"})):
        adapted = Adapted(network, learning_rate=0.1, train_mode=train_mode)
        adapted.remember()
        assert adapted.state_dict().keys() == adapted.originals.keys() == saved
