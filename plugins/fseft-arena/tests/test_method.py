"""The method keeps what every method must keep, and lowers the rank where the penalty says so."""

import pytest
import torch
from fseft.learn.adapters.apply import adapt_network
from fseft.learn.networks.backbone import build_network, get_architecture
from fseft.learn.training_loop import make_training_state, train
from fseft.registry import registry
from fseft.testing import TINY_NETWORKS, method_checks
from fseft.training_config import TrainingConfig

from fseft_arena.method import SingularChange

RECIPE = TrainingConfig(epochs=40, learning_rate=0.01, early_stopping=False)
NET = get_architecture("resunet")


@pytest.mark.parametrize("check", [*method_checks("arena"), *method_checks("arena", config={"penalty": 0, "rank": 2})])
def test_the_contract(check):
    check()


def adapted(**config):
    """The method on a small network."""
    network = build_network(NET, in_channels=1, out_channels=2, hparams=TINY_NETWORKS["resunet"].hparams, seed=0)
    spec = registry().method("arena")
    method = registry().create("method", "arena", spec.config(**config))
    return adapt_network(NET, network, method, decoder="frozen", seed=1)


def trained(recipe=RECIPE, **config):
    """After some steps towards a noisy goal."""
    training = make_training_state(adapted(**config), recipe)
    x = torch.randn((2, 1, 16, 16, 16), generator=torch.Generator().manual_seed(0))
    goal = (x[:, 0] > 0).long()

    def loss_of(step):
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(step))
        return torch.nn.functional.cross_entropy(training.adapted.network(x + noise), goal)

    return train(training, loss_of, recipe, steps_per_epoch=1).adapted


def ranks(adapted):
    """What is left of the rank of each change."""
    return [change.rank() for change in adapted.changes().values()]


def test_a_step_draws_the_singular_values_to_zero_by_penalty_times_rate():
    network = adapted(penalty=0.5, rank=3, ratio=30)
    change = next(iter(network.changes().values()))
    change.v.data = torch.tensor([1.0, -0.01, -0.2])
    optimizer = make_training_state(network, TrainingConfig(learning_rate=0.004)).optimizer  # 0.5 * 30 * 0.004 = 0.06
    network.on_optimizer_step(1, 10, optimizer)
    torch.testing.assert_close(change.v.data, torch.tensor([0.94, 0.0, -0.14]))
    assert change.rank() == 2


def test_columns_longer_than_one_cost_what_they_are_longer():
    network = adapted(bound=0.5, rank=2)
    changes = list(network.changes().values())
    for change in changes:
        change.u.data.zero_()
        change.vt.data.zero_()
    assert network.regularizer() == 0
    changes[0].u.data[:2, 1] = 1  # a column whose square is 2
    changes[-1].vt.data[0, 0] = 2
    torch.testing.assert_close(network.regularizer().detach(), torch.tensor(0.5 * (1 + 9)))
    assert adapted(bound=0).regularizer() is None


def test_a_step_is_as_long_as_the_recipe_says():
    network = adapted(penalty=0.5, rank=3, ratio=30)
    change = next(iter(network.changes().values()))
    recipe = TrainingConfig(learning_rate=0.004, uniform_learning_rate=True)
    training = make_training_state(network, recipe)
    train(training, lambda _: 0 * network.network(torch.ones(1, 1, 16, 16, 16)).sum(), RECIPE, steps_per_epoch=1)
    assert 0 < float(change.v.detach().min()) < 1
    assert ranks(network) == ranks(adapted(rank=3))  # 40 steps of at most 0.002 each


@pytest.mark.parametrize("rank", [2, 6])
def test_the_rank_falls_with_the_penalty(rank):
    free, some, all_ = (sum(ranks(trained(rank=rank, penalty=penalty))) for penalty in (0.0, 0.7, 3.0))
    assert free == sum(ranks(adapted(rank=rank)))
    assert all_ < some < free


def test_a_change_without_singular_values_is_none():
    weight = torch.ones(4, 3)
    change = SingularChange(weight, 8, 0.1, torch.Generator().manual_seed(0))
    torch.nn.init.ones_(change.u)
    assert change.rank() == 3
    torch.nn.init.zeros_(change.v)
    assert torch.equal(change(weight), weight)
