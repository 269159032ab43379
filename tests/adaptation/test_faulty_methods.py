"""Whatever a method of another package gives or raises, the run ends in one line that names the package."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

from fseft.adaptation.run import adapt
from fseft.builtin import plugin as builtin
from fseft.errors import PluginError
from fseft.learn.adapters.method import AdaptedNetwork
from fseft.plugin import MethodSpec, hookimpl
from fseft.registry import Plugin, Registry

NEEDS_ONE_MORE = "needs one more argument than it is called with"


class Foreign(AdaptedNetwork):
    """What the method gives, but for what a test changes."""


class Method:
    """A method that trains the head; a test says what is wrong with it."""

    changed: dict = {}  # noqa: RUF012 - each test has its own

    def __init__(self, config):
        self.config = config

    def select(self, _architecture, _network):
        return []

    def apply(self, architecture, network, **_):
        kind = type(
            "Foreign", (Foreign,), {name: _hook(answer) for name, answer in self.changed.items()}
        )
        adapted = kind.freeze_except((), architecture, network, learning_rate=1e-2)
        vars(adapted).update(
            {name: value for name, value in self.changed.items() if name in vars(adapted)}
        )
        return adapted


def _hook(answer):
    def hook(self, *arguments):
        if isinstance(answer, Exception):
            raise answer
        return answer

    def strict(self, one, two, three, four):
        return answer

    return strict if answer is NEEDS_ONE_MORE else hook


@pytest.fixture
def foreign(monkeypatch):
    """Offer the method `foreign`, and `foreign-head` for kept features, with these hooks or attributes."""
    specs = [
        MethodSpec(name="foreign", factory=f"{__name__}:Method"),
        MethodSpec(name="foreign-head", factory=f"{__name__}:Method", access="black-box"),
    ]
    module = ModuleType("foreign")
    module.fseft_methods = hookimpl(lambda: specs, specname="fseft_methods")
    plugins = [
        Plugin("builtin", "fseft", "1.0", builtin),
        Plugin("foreign", "fseft-foreign", "1.0", module),
    ]
    installed = Registry(plugins)
    for module in ("adaptation.run", "model_zoo.adapter_file", "adaptation.configure"):
        monkeypatch.setattr(f"fseft.{module}.registry", lambda: installed)
    return lambda **changed: monkeypatch.setattr(Method, "changed", changed)


RAISED = ValueError("no luck")
PLACE = r"ValueError: no luck; .*test_faulty_methods, line \d+"
WRONG = [
    ("regularizer", "none", "gave 'none', not a tensor with one number"),
    ("regularizer", torch.ones(3), "not a tensor with one number"),
    ("regularizer", RAISED, PLACE),
    ("on_optimizer_step", RAISED, PLACE),
    ("on_optimizer_step", NEEDS_ONE_MORE, r"strict\(\) missing 1 required positional argument"),
    ("calibrate", RAISED, PLACE),
    ("training_state", [1], r"gave \[1\], not tensors by name"),
    ("training_state", {"rank": 4}, "not tensors by name"),
    ("held_out", 1, "gave 1, not indices of cases"),
    ("held_out", ("a",), "not indices of cases"),
    ("held_out", (7,), r"gave \[7\], and the support cases are 0 to 1"),
    ("held_out", (0, 1), "none is left to learn from"),
    ("audit", RAISED, PLACE),
    ("settled", None, "gave None, not losses"),
    ("settled", "abc", "not losses"),
    ("finish", RAISED, PLACE),
    ("notes", 3, "gave 3, not lines of text"),
    ("notes", "one line", "not lines of text"),
    ("notes", (1, 2), "not lines of text"),
    ("trained", 3, "gave 3, not names with their parameters"),
    ("trained", [torch.ones(1)], "not names with their parameters"),
    ("param_groups", {"lr": 1.0}, "not groups of params with their lr"),
    ("param_groups", [{"params": []}], "not groups of params with their lr"),
    ("state_dict", None, "gave None, not tensors by name"),
    ("learning_rate", "high", "gave learning_rate = 'high', not a number"),
    ("rates", [1], "not numbers by name"),
    ("network", None, "not a module"),
    ("records", {"found": 1.0}, "not tensors by name"),
    ("optional", 3, "not names"),
]


@pytest.mark.parametrize(("name", "answer", "told"), WRONG)
def test_a_fault_of_a_method_is_told_with_its_package(
    name, answer, told, foreign, request_for, workspace
):
    foreign(**{name: answer})
    request = request_for("foreign", settings=("plateau=true",), decoder="frozen")
    with pytest.raises(
        PluginError, match=rf"the method 'foreign' failed \(.*{told}.*fseft-foreign 1\.0\."
    ):
        adapt(request, workspace)


@pytest.mark.parametrize(
    ("answer", "told"), [("solved", "gave 'solved', not a number"), (RAISED, PLACE)]
)
def test_a_fault_of_a_solver_is_told_with_its_package(
    answer, told, foreign, request_for, workspace
):
    foreign(solve=answer)
    with pytest.raises(PluginError, match=rf"{told}.*fseft-foreign 1\.0\."):
        adapt(request_for("foreign-head"), workspace)


def test_a_hook_that_is_set_on_the_object_is_looked_at_too(
    foreign, request_for, workspace, monkeypatch
):
    foreign()
    original = Method.apply

    def apply(self, *arguments, **named):
        adapted = original(self, *arguments, **named)
        adapted.notes = lambda: 3
        return adapted

    monkeypatch.setattr(Method, "apply", apply)
    with pytest.raises(PluginError, match=r"Foreign\.notes\(\) gave 3"):
        adapt(request_for("foreign", decoder="frozen"), workspace)


def test_answers_of_other_kinds_that_mean_the_same_are_taken(foreign, request_for, workspace):
    foreign(regularizer=torch.ones(1), held_out=[1], plateau_losses=torch.ones(2), notes=["a line"])
    run = adapt(request_for("foreign", settings=("plateau=true",), decoder="frozen"), workspace).run
    assert run.notes == ("a line",)
    foreign(solve=torch.tensor(0.5))
    assert adapt(request_for("foreign-head"), workspace).run.final_loss == 0.5
