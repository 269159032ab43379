"""Schedules warm up; optimizers take a method's parameter groups."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fseft.errors import FseftError
from fseft.learn.training import components, optimization
from fseft.learn.training.optimization import load_schedule, make_optimizer
from fseft.plugin import OptimizerSpec, ScheduleSpec, hookimpl
from fseft.registration import Plugin
from fseft.registry import Registry, import_object, registry
from fseft.training_config import TrainingConfig

SCHEDULES = [spec.name for spec in registry().specs("schedule", ScheduleSpec)]
fractions = st.floats(0, 1)
warmup_fractions = st.floats(0, 0.99)


@pytest.mark.parametrize("name", SCHEDULES)
@given(progress=fractions, warmup_fraction=warmup_fractions)
def test_a_factor_is_between_zero_and_one(name, progress, warmup_fraction):
    assert 0 <= load_schedule(name)(progress, warmup_fraction) <= 1


@pytest.mark.parametrize("name", SCHEDULES)
@given(first=fractions, second=fractions, warmup_fraction=warmup_fractions)
def test_a_factor_rises_in_the_warmup_and_never_after_it(name, first, second, warmup_fraction):
    early, late = sorted((first, second))
    schedule = load_schedule(name)
    change = schedule(late, warmup_fraction) - schedule(early, warmup_fraction)
    if late < warmup_fraction:
        assert change >= 0
    if early >= warmup_fraction:
        assert change <= 0


@pytest.mark.parametrize(("name", "last"), [("cosine", 0), ("constant", 1), ("poly", 0)])
@given(warmup_fraction=warmup_fractions)
def test_the_last_factor(name, last, warmup_fraction):
    assert load_schedule(name)(1.0, warmup_fraction) == pytest.approx(last, abs=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_first_step_has_a_learning_rate(name):
    assert load_schedule(name)(0.0, 0.05) > 0


def test_the_cosine_at_known_places():
    cosine = load_schedule("cosine")
    assert cosine(0, 0) == 1
    assert cosine(0.05, 0.1) == pytest.approx(0.5)
    assert cosine(0.1, 0.1) == 1
    assert cosine(0.55, 0.1) == pytest.approx(0.5)


def optimizer_of(**settings):
    parameter = nn.Parameter(torch.ones(1))

    def groups(learning_rate):
        return [{"params": [parameter], "lr": 10 * learning_rate}]

    return make_optimizer(groups, 1e-3, TrainingConfig(**settings))


def test_adamw_is_the_default():
    optimizer = optimizer_of(weight_decay=0.1)
    assert type(optimizer) is torch.optim.AdamW
    (group,) = optimizer.param_groups
    assert (group["base"], group["weight_decay"]) == (pytest.approx(1e-2), 0.1)


def test_sgd_is_that_of_nnunet_with_a_larger_default_learning_rate():
    optimizer = optimizer_of(optimizer="sgd")
    assert type(optimizer) is torch.optim.SGD
    (group,) = optimizer.param_groups
    assert (group["momentum"], group["nesterov"]) == (0.99, True)
    assert group["base"] == pytest.approx(1e-1)


def test_schedule_and_optimizer_have_settings():
    assert load_schedule("poly", {"exponent": 1.0})(0.5, 0.0) == 0.5
    settings = {"optimizer": {"momentum": 0.5}}
    (group,) = optimizer_of(optimizer="sgd", components=settings).param_groups
    assert group["momentum"] == 0.5


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_given_learning_rate_counts_as_it_is(optimizer):
    created = optimizer_of(optimizer=optimizer, learning_rate=0.5, uniform_learning_rate=True)
    assert created.param_groups[0]["base"] == 0.5


def test_names_are_checked():
    with pytest.raises(FseftError, match=r"unknown schedule 'cosin'.*cosine"):
        load_schedule("cosin")
    with pytest.raises(FseftError, match=r"unknown optimizer 'adam'.*adamw"):
        optimizer_of(optimizer="adam")


def halving(progress, warmup_fraction):
    """A schedule of a plugin."""
    return 0.5**progress


def rprop(parameter_groups, weight_decay):
    """An optimizer of a plugin."""
    return torch.optim.Rprop(parameter_groups)


def test_a_plugin_adds_a_schedule_and_an_optimizer(monkeypatch):
    schedule = ScheduleSpec(name="halving", factory=f"{__name__}:halving")
    optimizer = OptimizerSpec(name="rprop", factory=f"{__name__}:rprop")
    hooks = SimpleNamespace()
    hooks.fseft_schedules = hookimpl(lambda: [schedule], specname="fseft_schedules")
    hooks.fseft_optimizers = hookimpl(lambda: [optimizer], specname="fseft_optimizers")
    builtin = Plugin("builtin", "fseft", "1", import_object("fseft.builtin:plugin"))
    installed = Registry([builtin, Plugin("mine", "mine", "1", hooks)])
    for module in (optimization, components):
        monkeypatch.setattr(module, "registry", lambda: installed)
    assert load_schedule("halving")(1.0, 0.0) == 0.5
    assert type(optimizer_of(optimizer="rprop")) is torch.optim.Rprop
