"""Exceptions of an architecture reach the caller, except those that the user can fix."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from torch import nn

from fseft.builtin import plugin as builtin
from fseft.builtin.architectures.resunet import ResUNet, ResUNetConfig
from fseft.errors import FseftError, PluginError
from fseft.plugin import ArchitectureSpec, hookimpl
from fseft.pretraining.initialisation import Initialisation, build_initialised_network
from fseft.registration import Plugin
from fseft.registry import Registry
from tests.sample_data import HPARAMS, adapt, write_model


class Custom(ResUNet):
    """A working architecture, with the methods that a test overrides."""


@pytest.fixture
def override(monkeypatch, workspace):
    """Register the architecture `custom` and a model; return a function that overrides methods."""
    module = ModuleType("custom")
    specs = [ArchitectureSpec(name="custom", factory=f"{__name__}:Custom", config=ResUNetConfig)]
    module.fseft_architectures = hookimpl(lambda: specs, specname="fseft_architectures")
    plugins = [
        Plugin("builtin", "fseft", "1.0", builtin),
        Plugin("custom", "fseft-custom", "1.0", module),
    ]
    installed = Registry(plugins)
    for user in (
        "learn.networks.backbone",
        "learn.training.network_cost",
        "adaptation.documents",
        "adaptation.feature_cache",
    ):
        monkeypatch.setattr(f"fseft.{user}.registry", lambda: installed, raising=False)
    write_model(workspace, "custom", architecture="custom")

    def set_methods(**methods):
        for name, method in methods.items():
            monkeypatch.setattr(Custom, name, method)

    return set_methods


def fail(self, *_arguments, **_named):
    raise ValueError("no luck")


def run_out_of_memory(self, *_arguments, **_named):
    raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize("name", ["build", "replace_head", "features"])
def test_an_exception_of_an_architecture_keeps_its_type(name, override, request_for, workspace):
    override(**{name: fail})
    with pytest.raises(ValueError, match="no luck"):
        adapt(request_for(model="custom"), workspace)


def test_a_head_outside_the_network_is_refused(override, request_for, workspace):
    override(head=lambda *_: nn.Conv3d(1, 1, 1))
    with pytest.raises(PluginError, match=r"Custom\.head\(\) returned a module that is not in the"):
        adapt(request_for(model="custom"), workspace)


def test_an_architecture_of_a_plugin_works(override, request_for, workspace):
    override()
    assert adapt(request_for(model="custom"), workspace).run.outcome == "finished"


def test_running_out_of_memory_is_an_error_of_the_user(override, request_for, workspace):
    override(features=run_out_of_memory)
    with pytest.raises(FseftError, match="does not fit the memory"):
        adapt(request_for(model="custom"), workspace)


def test_hyperparameters_that_an_architecture_rejects_are_named(override):
    override(build=fail)
    start = Initialisation(architecture="custom", hparams=HPARAMS)
    with pytest.raises(
        FseftError, match=r"cannot be built with .*channels.*no luck.*hyper-parameters"
    ):
        build_initialised_network(start, ["liver"], seed=0)


def test_an_architecture_that_fails_without_settings_is_not_an_error_of_the_user(override):
    override(build=fail)
    with pytest.raises(ValueError, match="no luck"):
        build_initialised_network(
            Initialisation(architecture="custom", hparams={}), ["liver"], seed=0
        )
