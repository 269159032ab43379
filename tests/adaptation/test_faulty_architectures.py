"""Whatever an architecture of another package gives or raises, the command ends in one line that names the package."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import pytest
import torch

from fseft.adaptation.run import adapt
from fseft.builtin import plugin as builtin
from fseft.builtin.architectures.resunet import ResUNet
from fseft.errors import FseftError, PluginError
from fseft.learn.networks.backbone import get_architecture
from fseft.plugin import ArchitectureSpec, hookimpl
from fseft.pretraining.initialisation import Initialisation, build_initialised_network
from fseft.registry import Plugin, Registry
from tests.sample_data import HPARAMS, write_model


class Foreign(ResUNet):
    """A network that works, but for what a test sets on the class."""


@pytest.fixture
def foreign(monkeypatch, workspace):
    """Offer the architecture `foreign`, and a model of it, and change what is wanted after the model was made."""
    module = ModuleType("foreign")
    specs = [ArchitectureSpec(name="foreign", factory=f"{__name__}:Foreign")]
    module.fseft_architectures = hookimpl(lambda: specs, specname="fseft_architectures")
    plugins = [
        Plugin("builtin", "fseft", "1.0", builtin),
        Plugin("foreign", "fseft-foreign", "1.0", module),
    ]
    installed = Registry(plugins)
    for user in (
        "fseft.learn.networks.backbone",
        "fseft.adaptation.run",
        "fseft.adaptation.feature_cache",
    ):
        monkeypatch.setattr(f"{user}.registry", lambda: installed)
    write_model(workspace, "foreign", architecture="foreign")
    return lambda **changed: [
        monkeypatch.setattr(Foreign, name, value) for name, value in changed.items()
    ]


def giving(answer):
    return lambda *_arguments, **_named: answer


def raising(self, *_arguments, **_named):
    raise ValueError("no luck")


def short_of_memory(self, *_arguments, **_named):
    raise torch.OutOfMemoryError("CUDA out of memory")


PLACE = r"ValueError: no luck; .*test_faulty_architectures, line \d+"


@pytest.mark.parametrize(
    ("name", "wrong", "told"),
    [
        ("minimum_patch", 32, r"Foreign\.minimum_patch is 32, not three numbers of voxels"),
        ("divisor", (2, 2), r"divisor is \(2, 2\), not three"),
        ("divisor", (2, 0, 2), "not three"),
        ("build", giving(None), r"Foreign\.build\(\) gave None, not a module"),
        ("build", raising, PLACE),
        ("targets", giving(None), "gave None, not targets"),
        ("targets", giving(["conv"]), r"gave \['conv'\], not targets"),
        ("targets", giving([]), "gave no target whose part is the head"),
        ("targets", raising, PLACE),
        ("head", giving("head"), "gave 'head', not a module"),
        ("replace_head", raising, PLACE),
        ("replace_head", lambda _: None, r"<lambda>\(\) takes 1 positional argument"),
        ("features", giving(torch.zeros(1)), r"not a tensor \(B, F, i, j, k\)"),
        ("features", raising, PLACE),
    ],
)
def test_a_fault_of_an_architecture_is_told_with_its_package(
    name, wrong, told, foreign, request_for, workspace
):
    foreign(**{name: wrong})
    method = "affine" if name == "targets" else "linear-probe"  # which asks for its features
    with pytest.raises(
        PluginError, match=rf"the architecture 'foreign' failed \(.*{told}.*fseft-foreign 1\.0\."
    ):
        adapt(replace(request_for(method), model="foreign"), workspace)


def test_one_that_is_right_works(foreign, request_for, workspace):
    foreign()
    assert adapt(replace(request_for(), model="foreign"), workspace).run.outcome == "finished"


def test_want_of_memory_is_nobodys_fault(foreign, request_for, workspace):
    foreign(features=short_of_memory)
    with pytest.raises(FseftError, match="does not fit the memory") as caught:
        adapt(replace(request_for(), model="foreign"), workspace)
    assert "fseft-foreign" not in str(caught.value)


def test_a_network_that_refuses_what_was_set_is_not_called_broken(foreign):
    foreign(build=raising)
    start = Initialisation(architecture="foreign", hparams=HPARAMS)
    with pytest.raises(
        FseftError, match=r"no luck; .*with .*channels.*`fseft show .* keys of --set\. Repair"
    ):
        build_initialised_network(start, ["liver"], seed=0)


def test_a_network_that_is_none_is_not_blamed_on_what_was_set(foreign):
    foreign(build=giving(None))
    with pytest.raises(PluginError, match=r"gave None, not a module\)\. Repair or remove"):
        build_initialised_network(
            Initialisation(architecture="foreign", hparams=HPARAMS), ["liver"], seed=0
        )


def test_an_object_that_is_given_again_is_looked_at_once(foreign, monkeypatch):
    foreign()
    one = Foreign()
    monkeypatch.setattr(Foreign, "__new__", lambda _: one)
    assert (
        vars(get_architecture("foreign"))["targets"] is vars(get_architecture("foreign"))["targets"]
    )
