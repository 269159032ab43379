"""Exceptions of a method reach the caller, and values that spoil a result are refused."""

from __future__ import annotations

import traceback
from types import ModuleType

import pytest
import torch

from fseft.builtin import plugin as builtin
from fseft.errors import PluginError
from fseft.learn.adapters.adapted_network import AdaptedNetwork
from fseft.plugin import MethodSpec, hookimpl
from fseft.registration import Plugin
from fseft.registry import Registry
from tests.sample_data import adapt


class Method:
    """A method that trains the head, with the hooks that a test overrides."""

    hooks: dict = {}  # noqa: RUF012 - each test sets its own

    def __init__(self, config):
        self.config = config

    def select(self, _architecture, _network):
        return []

    def apply(self, architecture, network, **_):
        kind = type("Custom", (AdaptedNetwork,), self.hooks)
        return kind.freeze_except((), architecture, network, learning_rate=1e-2)


@pytest.fixture
def install_hooks(monkeypatch):
    """Register the methods `custom`, and `custom-head` on cached features, with these hooks."""
    specs = [
        MethodSpec(name="custom", factory=f"{__name__}:Method"),
        MethodSpec(name="custom-head", factory=f"{__name__}:Method", access="black-box"),
    ]
    module = ModuleType("custom")
    module.fseft_methods = hookimpl(lambda: specs, specname="fseft_methods")
    plugins = [
        Plugin("builtin", "fseft", "1.0", builtin),
        Plugin("custom", "fseft-custom", "1.0", module),
    ]
    installed = Registry(plugins)
    for user in (
        "adaptation.documents",
        "model_zoo.adapter_file",
        "adaptation.configure",
        "experiment.settings",
    ):
        monkeypatch.setattr(f"fseft.{user}.registry", lambda: installed)
    return lambda **hooks: monkeypatch.setattr(Method, "hooks", hooks)


def look_up_layer(*_):
    return {}["no.such.layer"]


@pytest.mark.parametrize(
    "hook",
    ["calibrate", "regularizer", "on_optimizer_step", "on_epoch_validation", "finish", "notes"],
)
def test_an_exception_of_a_hook_keeps_its_type_and_frames(
    hook, install_hooks, request_for, workspace
):
    install_hooks(**{hook: lambda *_: look_up_layer()})
    with pytest.raises(KeyError, match=r"no\.such\.layer") as caught:
        adapt(request_for("custom", decoder="frozen"), workspace)
    assert traceback.extract_tb(caught.tb)[-1].name == "look_up_layer"


@pytest.mark.parametrize(
    ("cases", "message"),
    [
        ((7,), r"held_out_cases\(\) returned \[7\], but the training cases are 0 to 1"),
        ((0, 1), r"held_out_cases\(\) returned all training cases"),
    ],
)
def test_held_out_cases_must_be_some_of_the_training_cases(
    cases, message, install_hooks, request_for, workspace
):
    install_hooks(held_out_cases=lambda *_: cases)
    with pytest.raises(PluginError, match=message):
        adapt(request_for("custom", decoder="frozen"), workspace)


def test_hooks_may_return_lists_and_tensors_of_one_number(install_hooks, request_for, workspace):
    install_hooks(
        regularizer=lambda _: torch.ones(1),
        held_out_cases=lambda *_: [1],
        plateau_losses=lambda _, losses: torch.ones(len(losses)),
        notes=lambda _: ["a line"],
    )
    request = request_for("custom", settings=("early_stopping=true",), decoder="frozen")
    assert adapt(request, workspace).run.notes == ("a line",)
    install_hooks(fit_closed_form=lambda *_: torch.tensor(0.5))
    assert adapt(request_for("custom-head"), workspace).run.final_loss == 0.5
