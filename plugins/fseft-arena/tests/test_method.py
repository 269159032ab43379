"""The method fulfils the contract of all methods, and its penalty lowers the rank."""

import pytest
import torch
from fseft.learn.adapters.apply import adapt_network
from fseft.learn.networks.backbone import build_network, get_architecture
from fseft.learn.training_loop import make_training_state, train
from fseft.registry import registry
from fseft.testing import TINY_NETWORKS, method_checks
from fseft.training_config import TrainingConfig

from fseft_arena.method import SVDDelta

RECIPE = TrainingConfig(epochs=40, learning_rate=0.01, early_stopping=False)
NET = get_architecture("resunet")


@pytest.mark.parametrize(
    "check",
    [*method_checks("arena"), *method_checks("arena", config={"penalty": 0, "rank": 2})],
)
def test_the_contract(check):
    check()


def adapted(**config):
    """Return a small network with the method applied."""
    hparams = TINY_NETWORKS["resunet"].hparams
    network = build_network(NET, in_channels=1, out_channels=2, hparams=hparams, seed=0)
    spec = registry().method("arena")
    method = registry().create("method", "arena", spec.config(**config))
    return adapt_network(NET, network, method, decoder="frozen", seed=1)


def trained(recipe=RECIPE, **config):
    """Return the network after some steps on a noisy task."""
    training = make_training_state(adapted(**config), recipe)
    x = torch.randn((2, 1, 16, 16, 16), generator=torch.Generator().manual_seed(0))
    goal = (x[:, 0] > 0).long()

    def loss_of(step):
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(step))
        return torch.nn.functional.cross_entropy(training.adapted.network(x + noise), goal)

    return train(training, loss_of, recipe, steps_per_epoch=1).adapted


def ranks(adapted):
    """Return the current rank of each delta."""
    return [delta.rank() for delta in adapted.deltas().values()]


def test_a_step_draws_the_singular_values_to_zero_by_penalty_times_rate():
    network = adapted(penalty=0.5, rank=3, v_lr_ratio=30)
    delta = next(iter(network.deltas().values()))
    delta.v.data = torch.tensor([1.0, -0.01, -0.2])
    recipe = TrainingConfig(learning_rate=0.004)
    optimizer = make_training_state(network, recipe).optimizer  # 0.5 * 30 * 0.004 = 0.06
    network.on_optimizer_step(1, 10, optimizer)
    torch.testing.assert_close(delta.v.data, torch.tensor([0.94, 0.0, -0.14]))
    assert delta.rank() == 2


def test_columns_longer_than_one_cost_what_they_are_longer():
    network = adapted(bound=0.5, rank=2)
    deltas = list(network.deltas().values())
    for delta in deltas:
        delta.u.data.zero_()
        delta.vt.data.zero_()
    assert network.regularizer() == 0
    deltas[0].u.data[:2, 1] = 1  # a column whose square is 2
    deltas[-1].vt.data[0, 0] = 2
    torch.testing.assert_close(network.regularizer().detach(), torch.tensor(0.5 * (1 + 9)))
    assert adapted(bound=0).regularizer() is None


def test_the_proximal_step_follows_a_uniform_learning_rate():
    network = adapted(penalty=0.5, rank=3, v_lr_ratio=30)
    delta = next(iter(network.deltas().values()))
    x = torch.ones(1, 1, 16, 16, 16)
    recipe = TrainingConfig(learning_rate=0.004, uniform_learning_rate=True)
    training = make_training_state(network, recipe)
    train(training, lambda _: 0 * network.network(x).sum(), RECIPE, steps_per_epoch=1)
    assert 0 < float(delta.v.detach().min()) < 1
    assert ranks(network) == ranks(adapted(rank=3))  # 40 steps of at most 0.002 each


@pytest.mark.parametrize("rank", [2, 6])
def test_the_rank_falls_with_the_penalty(rank):
    free, some, all_ = (
        sum(ranks(trained(rank=rank, penalty=penalty))) for penalty in (0.0, 0.7, 3.0)
    )
    assert free == sum(ranks(adapted(rank=rank)))
    assert all_ < some < free


def test_a_delta_without_singular_values_leaves_the_weight_unchanged():
    weight = torch.ones(4, 3)
    delta = SVDDelta(weight, 8, 0.1, torch.Generator().manual_seed(0))
    torch.nn.init.ones_(delta.u)
    assert delta.rank() == 3
    torch.nn.init.zeros_(delta.v)
    assert torch.equal(delta(weight), weight)


def test_the_former_name_of_the_ratio_is_read():
    assert registry().method("arena").config(ratio=7.0).v_lr_ratio == 7.0
