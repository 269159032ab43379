"""The training loop stops as configured, and an interrupted training resumes exactly."""

from __future__ import annotations

import io
from itertools import pairwise

import pytest
import torch
from torch import nn

from fseft.errors import FseftError
from fseft.learn.adapters.adapted_network import AdaptedNetwork
from fseft.learn.training_loop import autocast, make_training_state, train
from fseft.training_config import TrainingConfig

RECIPE = TrainingConfig(epochs=6, learning_rate=0.05, early_stopping=False, checkpoint_seconds=0)


def a_problem():
    """A network, and the loss of a step, which depends on the number of the step alone."""
    torch.manual_seed(0)
    network = nn.Linear(4, 2)

    def loss_of(step):
        generator = torch.Generator().manual_seed(step)
        x = torch.randn((8, 4), generator=generator)
        return (network(x) - x[:, :2]).square().mean()

    return AdaptedNetwork(network, learning_rate=0.01), loss_of


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def trained(recipe=RECIPE, **options):
    adapted, loss_of = a_problem()
    return train(
        make_training_state(adapted, recipe), loss_of, recipe, steps_per_epoch=3, **options
    )


def test_training_makes_the_loss_smaller():
    training = trained()
    assert training.losses[-1] < training.losses[0]
    assert (len(training.losses), training.step, training.stopped_by) == (6, 18, "all epochs")


@pytest.mark.parametrize(("optimizer", "schedule"), [("adamw", "cosine"), ("sgd", "poly")])
@pytest.mark.parametrize("at", range(1, 7))
def test_a_resumed_training_equals_an_uninterrupted_one_bit_for_bit(at, optimizer, schedule):
    config = RECIPE.model_copy(update={"optimizer": optimizer, "schedule": schedule})
    states = []
    whole = trained(config, save=lambda state: states.append(through_a_file(state)))
    adapted, loss_of = a_problem()
    resumed = make_training_state(adapted, config)
    resumed.restore(states[at - 1])
    assert len(resumed.losses) == at
    train(resumed, loss_of, config, steps_per_epoch=3)
    assert resumed.losses == whole.losses
    assert resumed.step == whole.step
    for name, tensor in whole.adapted.state_dict().items():
        assert torch.equal(resumed.adapted.state_dict()[name], tensor)


def test_what_a_method_remembers_of_its_training_is_saved_with_it():
    class Counts(AdaptedNetwork):
        steps = torch.zeros(())

        def on_optimizer_step(self, step, total, optimizer):  # noqa: ARG002
            self.steps = torch.tensor(float(step))

        def training_state(self):
            return {"steps": self.steps}

        def load_training_state(self, tensors):
            self.steps = tensors["steps"]

    states = []
    adapted, loss_of = a_problem()
    keep = lambda state: states.append(through_a_file(state))  # noqa: E731
    train(
        make_training_state(Counts(adapted.network, 0.01), RECIPE),
        loss_of,
        RECIPE,
        steps_per_epoch=3,
        save=keep,
    )
    fresh = Counts(a_problem()[0].network, 0.01)
    make_training_state(fresh, RECIPE).restore(states[1])
    assert fresh.steps == 6


def test_a_finished_training_is_not_trained_further():
    training = trained()
    train(training, lambda _: pytest.fail("a step too many"), RECIPE, steps_per_epoch=3)


@pytest.mark.parametrize(("uniform_learning_rate", "rates"), [(False, {0.05, 0.5}), (True, {0.05})])
def test_one_rate_is_that_of_all_groups(uniform_learning_rate, rates):
    adapted, _ = a_problem()
    adapted.lr_multipliers["bias"] = 10.0
    training = make_training_state(
        adapted, RECIPE.model_copy(update={"uniform_learning_rate": uniform_learning_rate})
    )
    assert {group["base"] for group in training.optimizer.param_groups} == rates


def test_every_epoch_is_reported():
    epochs = []
    trained(on_epoch=epochs.append)
    assert [epoch.number for epoch in epochs] == [1, 2, 3, 4, 5, 6]
    assert epochs[-1].progress == 1
    assert all(a.progress < b.progress for a, b in pairwise(epochs))
    assert all(0 < epoch.learning_rate <= 0.05 for epoch in epochs)


def test_every_step_is_reported_as_an_epoch_so_far():
    steps, epochs = [], []
    trained(on_step=steps.append, on_epoch=epochs.append)
    last_steps = steps[2::3]
    for number, (step, epoch) in enumerate(zip(last_steps, epochs, strict=True), start=1):
        assert (step.number, step.loss) == (number, epoch.loss)
    for number, step in enumerate(steps, start=1):
        assert step.progress == pytest.approx(number / 18)


def test_states_are_saved_after_the_first_epoch_then_no_oftener_than_asked_and_at_the_end():
    states = []
    trained(RECIPE.model_copy(update={"checkpoint_seconds": 3600.0}), save=states.append)
    assert [state["step"] for state in states] == [3, 18]


@pytest.fixture
def clock(monkeypatch):
    """The clock of the training loop, on which a step takes a second."""
    now = [0.0]
    monkeypatch.setattr("fseft.learn.training_loop.time.monotonic", lambda: now[0])
    return now


def timed(clock, recipe, *, seconds, **options):
    """Train with a time budget of some seconds."""
    adapted, loss_of = a_problem()

    def loss_after_a_second(step):
        clock[0] += 1
        return loss_of(step)

    state = make_training_state(adapted, recipe)
    return train(
        state, loss_after_a_second, recipe, steps_per_epoch=3, minutes=seconds / 60, **options
    )


def test_the_time_budget_is_kept(clock):
    training = timed(clock, RECIPE.model_copy(update={"epochs": 100_000}), seconds=20.5)
    assert (training.stopped_by, training.step) == ("time budget", 20)


def test_the_schedule_is_stretched_over_the_time_budget(clock):
    rates = []
    recipe = RECIPE.model_copy(update={"epochs": 100_000})
    timed(clock, recipe, seconds=60, on_epoch=lambda epoch: rates.append(epoch.learning_rate))
    assert max(rates) > 0.04
    assert rates[-1] < max(rates) / 3


@pytest.mark.parametrize(("min_steps", "steps"), [(1, 1), (3, 3), (4, 4)])
def test_a_budget_too_small_for_a_step_still_allows_the_fewest_steps(clock, min_steps, steps):
    training = timed(clock, RECIPE, seconds=1e-9, min_steps=min_steps)
    assert (training.stopped_by, training.step) == ("time budget", steps)
    assert training.losses


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_a_number_is_an_error(value):
    adapted, loss_of = a_problem()
    initial = adapted.state_dict()
    with pytest.raises(FseftError, match=r"loss is (nan|inf) at step 0.*Lower the learning rate"):
        train(
            make_training_state(adapted, RECIPE),
            lambda step: loss_of(step) * value,
            RECIPE,
            steps_per_epoch=3,
        )
    assert all(torch.equal(initial[name], tensor) for name, tensor in adapted.state_dict().items())


def test_a_plateau_of_the_loss_stops_the_training_if_asked_to():
    recipe = RECIPE.model_copy(update={"epochs": 100, "early_stopping": True})
    adapted, loss_of = a_problem()

    def flat(step):
        return 0 * loss_of(step) + 0.5

    assert (
        train(make_training_state(adapted, recipe), flat, recipe, steps_per_epoch=1).stopped_by
        == "plateau of the training loss"
    )
    assert (
        len(train(make_training_state(adapted, recipe), flat, recipe, steps_per_epoch=1).losses)
        == 30
    )
    on = recipe.model_copy(update={"early_stopping": False})
    assert (
        train(make_training_state(adapted, on), flat, on, steps_per_epoch=1).stopped_by
        == "all epochs"
    )


def test_early_stopping_ignores_losses_that_the_method_leaves_out():
    recipe = RECIPE.model_copy(update={"epochs": 100, "early_stopping": True})
    adapted, loss_of = a_problem()
    adapted.plateau_losses = lambda losses: losses[7:]
    training = train(
        make_training_state(adapted, recipe),
        lambda step: 0 * loss_of(step),
        recipe,
        steps_per_epoch=1,
    )
    assert (len(training.losses), training.stopped_by) == (37, "plateau of the training loss")


def test_the_recipe_s_rate_goes_before_the_method_s_and_ratios_multiply_it():
    adapted, _ = a_problem()
    adapted.lr_multipliers["bias"] = 4.0
    for recipe, rate in ((TrainingConfig(), 0.01), (RECIPE, 0.05)):
        groups = make_training_state(adapted, recipe).optimizer.param_groups
        assert {group["lr"] for group in groups} == {rate, 4 * rate}


def test_a_method_may_add_to_the_loss_and_is_called_after_every_step():
    adapted, loss_of = a_problem()
    steps = []
    adapted.on_optimizer_step = lambda step, total, optimizer: steps.append(
        (step, total, type(optimizer))
    )
    adapted.regularizer = lambda: 10 * sum(p.square().sum() for p in adapted.network.parameters())
    pulled = train(make_training_state(adapted, RECIPE), loss_of, RECIPE, steps_per_epoch=3)
    assert steps == [(step, 18, torch.optim.AdamW) for step in range(1, 19)]
    free = trained()
    assert pulled.adapted.network.weight.norm() < free.adapted.network.weight.norm()


def test_mixed_precision_is_used_where_it_is_requested():
    weight = torch.ones(4, 4)
    with autocast("cpu", "bf16"):
        assert (weight @ weight).dtype == torch.bfloat16
    for precision in ("auto", "fp32"):
        with autocast("cpu", precision):
            assert (weight @ weight).dtype == torch.float32


def test_a_gradient_is_never_longer_than_the_clip():
    steps = {}
    for clip in (None, 1e-3):
        adapted, loss_of = a_problem()
        recipe = RECIPE.model_copy(update={"max_grad_norm": clip})
        training = make_training_state(adapted, recipe)
        train(
            training, lambda step, loss_of=loss_of: 100 * loss_of(step), recipe, steps_per_epoch=3
        )
        steps[clip] = sum(p.grad.square().sum() for p in adapted.network.parameters()).sqrt().item()
    assert steps[1e-3] == pytest.approx(1e-3, rel=1e-3)
    assert steps[None] > 1


def test_a_gradient_that_is_not_a_number_is_an_error_before_it_changes_weights():
    adapted, loss_of = a_problem()
    recipe = RECIPE.model_copy(update={"max_grad_norm": 1.0})
    initial = adapted.state_dict()
    for parameter in adapted.network.parameters():
        parameter.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(FseftError, match="the gradient is nan at step 0"):
        train(make_training_state(adapted, recipe), loss_of, recipe, steps_per_epoch=3)
    assert all(torch.equal(initial[name], tensor) for name, tensor in adapted.state_dict().items())


def test_averaged_weights_take_the_place_of_the_last_ones_also_after_a_kill():
    recipe, states = RECIPE.model_copy(update={"ema_decay": 0.9}), []
    whole = trained(recipe, save=lambda state: states.append(through_a_file(state)))
    assert not torch.equal(whole.adapted.network.weight, trained().adapted.network.weight)
    for state in (states[2], states[-1]):
        adapted, loss_of = a_problem()
        resumed = make_training_state(adapted, recipe)
        resumed.restore(state)
        train(resumed, loss_of, recipe, steps_per_epoch=3)
        assert torch.equal(resumed.adapted.network.weight, whole.adapted.network.weight)
