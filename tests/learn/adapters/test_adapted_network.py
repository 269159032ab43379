"""The adapted network: what it remembers, and what it gives back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fseft.errors import FseftError
from fseft.learn.adapters.adapted_network import AdaptedNetwork
from fseft.learn.adapters.adapter_layers import Bottleneck, LowRank, add_branch, add_delta
from fseft.learn.networks.roles import Target


@torch.no_grad()
def test_switched_off_the_batch_statistics_are_the_old_ones():
    torch.manual_seed(0)
    x, network = torch.randn(2, 1, 4, 4, 4), nn.Sequential(nn.Conv3d(1, 2, 1), nn.BatchNorm3d(2))
    adapted = AdaptedNetwork(network, learning_rate=0.1, train_mode=True)
    adapted.snapshot_base_weights()
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
    for train_mode, saved in (
        (False, set()),
        (True, {"1.running_mean", "1.running_var", "1.num_batches_tracked"}),
    ):
        adapted = AdaptedNetwork(network, learning_rate=0.1, train_mode=train_mode)
        adapted.snapshot_base_weights()
        assert adapted.state_dict().keys() == adapted.base_snapshot.keys() == saved


def with_additions():
    """Return two layers, with two deltas on the first and a branch of the second, as if trained."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).requires_grad_(False)
    targets = [
        Target(str(index), layer, "encoder", 0, "mlp") for index, layer in enumerate(network)
    ]
    generator = torch.Generator().manual_seed(0)
    names = [
        *(
            add_delta(targets[0], LowRank(network[0].weight, rank, 1.0, generator))
            for rank in (1, 2)
        ),
        add_branch(targets[1], Bottleneck(4, 2, 1.0, generator)),
    ]
    adapted = AdaptedNetwork(
        network, learning_rate=0.1, prunable=tuple(names), extra_state={"audits": torch.tensor(0)}
    )
    adapted.unfreeze(names)
    adapted.snapshot_base_weights()
    for _, parameter in adapted.trainable_parameters():
        nn.init.normal_(parameter)
    return adapted


X = torch.ones(2, 4)


@torch.no_grad()
def test_what_was_dropped_changes_nothing_more_and_is_neither_trained_nor_saved():
    adapted, all_off = with_additions(), with_additions()
    with adapted.disabled():
        base = adapted.network(X)
    all_off.prune(all_off.prunable)
    assert torch.equal(all_off.network(X), base)
    assert all_off.trainable_parameters() == []
    assert all_off.state_dict().keys() == {"audits"}
    adapted.prune(adapted.prunable[:1])
    assert {name.rpartition(".")[0] for name, _ in adapted.trainable_parameters()} >= {
        adapted.prunable[1]
    }
    assert not any(name.startswith(adapted.prunable[0]) for name in adapted.state_dict())
    some = adapted.network(X)
    with adapted.disabled():
        assert torch.equal(adapted.network(X), base)
    assert torch.equal(adapted.network(X), some)
    torch.testing.assert_close(adapted.merge()(X), some)


@torch.no_grad()
@pytest.mark.parametrize(
    "dropped", [slice(0, 1), slice(1, 2), slice(2, 3), slice(0, 2), slice(0, 3)]
)
def test_an_adapter_that_lacks_what_is_optional_comes_back_without_it(dropped):
    adapted, fresh = with_additions(), with_additions()
    adapted.prune(adapted.prunable[dropped])
    fresh.load_state_dict(adapted.state_dict())
    assert torch.equal(fresh.network(X), adapted.network(X))
    assert fresh.state_dict().keys() == adapted.state_dict().keys()


def test_an_adapter_that_lacks_what_is_not_optional_is_refused():
    adapted, fresh = with_additions(), with_additions()
    adapted.prune(adapted.prunable[:1])
    fresh.prunable = fresh.prunable[1:]
    with pytest.raises(FseftError, match="2 tensors differ"):
        fresh.load_state_dict(adapted.state_dict())


def test_what_a_method_records_is_saved_and_loaded():
    adapted, fresh = with_additions(), with_additions()
    adapted.extra_state["audits"] += 3
    fresh.load_state_dict(adapted.state_dict())
    assert int(fresh.extra_state["audits"]) == 3
