"""The checks of methods find the flaws that they are for."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from itertools import count

import pytest
import torch

from fseft.errors import FseftError
from fseft.learn.adapters.adapted_network import AdaptedNetwork
from fseft.learn.adapters.adapter_layers import ChannelScale, LowRank, add_branch, add_delta
from fseft.learn.adapters.method import require_targets
from fseft.learn.networks.adapter_module import AdapterModule
from fseft.plugin import Config
from fseft.testing import TINY_NETWORKS, checks, method_checks
from fseft.testing.layers import CUBE, LayerSubject
from fseft.testing.method_harness import MethodHarness
from fseft.testing.parameters import run_check

SEEDS = count()
NEEDS_A_PACKAGE = (checks.loads_in_another_process,)  # where another process finds the method


class Flawed:
    """A correct method, to which each subclass adds a flaw."""

    config = Config()

    def select(self, architecture, network):
        targets = architecture.targets(network)
        convolutions = [target for target in targets if target.role == "conv.spatial"]
        return require_targets(convolutions, "convolutions", "lora")

    def apply(self, architecture, network, *, generator):
        targets = self.select(architecture, network)
        deltas = [
            add_delta(target, self.delta(target.module.weight, generator)) for target in targets
        ]
        return AdaptedNetwork.freeze_except(deltas, architecture, network, learning_rate=1e-2)

    def delta(self, weight, generator):
        return LowRank(weight, 2, 1.0, generator)


class ScalesBeforeANorm(Flawed):
    delta = staticmethod(lambda weight, _: ChannelScale(weight, 0))


class StartsElsewhere(Flawed):
    def delta(self, weight, generator):
        delta = super().delta(weight, generator)
        torch.nn.init.ones_(delta.b)
        return delta


class IgnoresTheGenerator(Flawed):
    delta = staticmethod(
        lambda weight, _: LowRank(weight, 2, 1.0, torch.Generator().manual_seed(next(SEEDS)))
    )


class TrainsElsewhere(Flawed):
    def apply(self, architecture, network, *, generator):
        adapted = super().apply(architecture, network, generator=generator)
        adapted.unfreeze(
            target.name for target in architecture.targets(network) if target.role == "norm"
        )
        return adapted


class Hides(Flawed):
    """Adds a branch by a closure, which is not part of the network."""

    def apply(self, architecture, network, *, generator):
        branch = Branch()
        architecture.head(network).register_forward_hook(
            lambda _, __, output: output + branch(output)
        )
        return super().apply(architecture, network, generator=generator)


class TrainsNothing(Flawed):
    def delta(self, weight, generator):
        delta = super().delta(weight, generator)
        for name in ("a", "b"):
            drawn = getattr(delta, name).detach()
            delattr(delta, name)
            delta.register_buffer(name, drawn)
        return delta


class HoldsOutAllCases(Flawed):
    def apply(self, architecture, network, *, generator):
        adapted = super().apply(architecture, network, generator=generator)
        adapted.held_out_cases = lambda _, cases: range(cases)
        return adapted


class NotesASingleLine(Flawed):
    def apply(self, architecture, network, *, generator):
        adapted = super().apply(architecture, network, generator=generator)
        adapted.notes = lambda: "a line"
        return adapted


class Counts(AdaptedNetwork):
    """Its penalty depends on the number of steps."""

    seen = 0

    def on_optimizer_step(self, *_):
        self.seen += 1

    def regularizer(self):
        return 0.1 * self.seen * sum(p.square().sum() for _, p in self.trainable_parameters())


class Remembers(Counts):
    def training_state(self):
        return {"seen": torch.tensor(self.seen)}

    def load_training_state(self, tensors):
        self.seen = int(tensors["seen"])


class LosesItsState(Flawed):
    kind = Counts

    def apply(self, architecture, network, *, generator):
        targets = self.select(architecture, network)
        deltas = [
            add_delta(target, self.delta(target.module.weight, generator)) for target in targets
        ]
        return self.kind.freeze_except(deltas, architecture, network, learning_rate=1e-2)


class RemembersWhatItHasSeen(LosesItsState):
    kind = Remembers


class FindsNothing(Flawed):
    """Does not complain if the network lacks its layers."""

    def select(self, architecture, network):
        return [target for target in architecture.targets(network) if target.role == "conv.spatial"]


class PlainConvolution(AdapterModule):
    """A parallel convolution that ignores stride and dilation of the base."""

    def __init__(self, width, generator):
        super().__init__()
        self.convolution = torch.nn.Conv3d(width, width, 3, padding=1, bias=False)
        torch.nn.init.normal_(self.convolution.weight, std=0.01, generator=generator)

    def forward(self, x):
        return self.convolution(x)


class FoldsIn(AdaptedNetwork):
    def merge(self):
        for module in self.network.modules():
            for branch in [
                child for child in module.children() if isinstance(child, PlainConvolution)
            ]:
                branch.enabled = False
                module.weight.data += branch.convolution.weight.data
        return self.network


class IgnoresDilation(Flawed):
    def apply(self, architecture, network, *, generator):
        targets = self.select(architecture, network)
        branches = [
            add_branch(t, PlainConvolution(t.module.in_channels, generator)) for t in targets
        ]
        return FoldsIn.freeze_except(branches, architecture, network, learning_rate=1e-2)


class Branch(AdapterModule):
    def forward(self, x):
        return 0.1 * x


def subject_of(method):
    subject = MethodHarness("lora", {}, "frozen", "resunet", TINY_NETWORKS["resunet"], 1e-5)
    subject.method = method
    return subject


@pytest.mark.parametrize(
    "check", [check for check in checks.CHECKS if check not in NEEDS_A_PACKAGE]
)
def test_a_correct_method_passes(check):
    check(subject_of(Flawed()))


@pytest.mark.parametrize(
    ("flawed", "check"),
    [
        (ScalesBeforeANorm, checks.gives_every_tensor_a_gradient),
        (StartsElsewhere, checks.starts_as_the_base),
        (IgnoresTheGenerator, checks.starts_the_same_for_the_same_seed),
        (TrainsElsewhere, checks.trains_where_it_selects),
        (Hides, checks.can_be_switched_off),
        (TrainsNothing, checks.trains_what_it_adds),
        (HoldsOutAllCases, checks.hooks_return_documented_types),
        (NotesASingleLine, checks.hooks_return_documented_types),
        (LosesItsState, checks.resumes_to_the_same_adapter),
        (FindsNothing, checks.refuses_a_network_without_its_layers),
    ],
)
def test_a_flaw_is_found(flawed, check):
    with pytest.raises(AssertionError):
        check(subject_of(flawed()))


def test_a_merge_that_ignores_dilation_is_found_on_a_layer_that_no_toy_has():
    def layer(name):
        subject = LayerSubject("lora", {}, "frozen", name, CUBE, 1e-5)
        subject.method = IgnoresDilation()
        return subject

    checks.merges_exactly(layer("without-bias"))
    with pytest.raises(AssertionError):
        checks.merges_exactly(layer("dilated"))


def test_a_layer_that_a_method_refuses_when_it_is_applied_is_skipped():
    class RefusesGroups(Flawed):
        def apply(self, architecture, network, *, generator):
            (target,) = self.select(architecture, network)
            if target.module.groups > 1:
                raise FseftError("cannot change grouped convolutions")
            return super().apply(architecture, network, generator=generator)

    subject = LayerSubject("lora", {}, "frozen", "grouped", CUBE, 1e-5)
    subject.method = RefusesGroups()
    assert subject.refusal == "cannot change grouped convolutions."


def test_a_method_that_changes_features_is_not_a_black_box():
    subject = subject_of(Flawed())
    subject.spec = replace(subject.spec, access="black-box")
    with pytest.raises(AssertionError):
        checks.keeps_features_unchanged_as_a_black_box(subject)


def test_a_method_that_saves_its_training_state_passes():
    checks.resumes_to_the_same_adapter(subject_of(RemembersWhatItHasSeen()))


@pytest.mark.parametrize("decoder", ["frozen", "fine-tuned", "low-rank"])
def test_constants_of_adapters_are_not_trained(decoder):
    class FixesA(Flawed):
        def delta(self, weight, generator):
            delta = super().delta(weight, generator)
            delta.a.requires_grad_(False)
            return delta

    subject = replace(subject_of(FixesA()), decoder=decoder)
    subject.method = FixesA()
    adapted = subject.adapted()
    encoder = [t.name for t in subject.architecture.targets(adapted.network) if t.part == "encoder"]
    names = [
        name
        for name, _ in adapted.trainable_parameters()
        if any(name.startswith(f"{module}.") for module in encoder)
    ]
    assert {name.rpartition(".")[2] for name in names} == {"b"}
    assert all(
        not p.requires_grad
        for name, p in adapted.network.named_parameters()
        if name in adapted.saved_constants
    )
    checks.loads_from_its_file(subject)


def test_a_failing_check_says_first_what_it_checks():
    with pytest.raises(
        AssertionError, match=r"^Before training, the output is that of the base\. "
    ):
        run_check(checks.starts_as_the_base, subject_of(StartsElsewhere()))


def test_a_method_that_fits_no_network_does_not_pass_by_skipping_all():
    *_, fits = method_checks(
        "lora",
        config={"roles": ["pos_bias"]},
        networks={"resunet": TINY_NETWORKS["resunet"], "unet": TINY_NETWORKS["unet"]},
    )
    with pytest.raises(
        AssertionError, match="accepts no network: the method 'lora' requires pos_bias layers"
    ):
        fits.values[0]()


def test_a_method_that_is_not_installed_fails_its_checks_instead_of_skipping_them():
    check, *_ = (
        parameter.values[0]
        for parameter in method_checks("missing", networks={"resunet": TINY_NETWORKS["resunet"]})
    )
    with pytest.raises((FseftError, pytest.skip.Exception)) as ended:
        check()
    assert ended.type is FseftError


@pytest.mark.full
def test_unsaved_state_is_found_in_another_process():
    subject = MethodHarness("lora", {}, "frozen", "resunet", TINY_NETWORKS["resunet"], 1e-5)
    checks.loads_in_another_process(subject)
    changed = replace(subject)
    changed.trained = subject.trained
    for module in changed.trained.network.modules():
        if isinstance(module, LowRank):
            module.scale *= 2
    with pytest.raises(AssertionError):
        checks.loads_in_another_process(changed)


def test_tests_of_a_plugin_find_no_other(tmp_path):
    (tmp_path / "conftest.py").write_text(
        "from fseft.testing import only_plugins\nalone = only_plugins('nothing')\n",
        encoding="utf-8",
    )
    (tmp_path / "test_it.py").write_text(
        "from fseft.registry import registry\n"
        "def test_it():\n"
        "    assert [plugin.name for plugin in registry().plugins] == ['builtin']\n",
        encoding="utf-8",
    )
    environment = {key: value for key, value in os.environ.items() if key != "FSEFT_NO_PLUGINS"}
    result = subprocess.run(
        [sys.executable, "-m", "pytest", tmp_path],
        env=environment,
        check=False,
        capture_output=True,
    )
    assert result.returncode == 0, result.stdout.decode()
