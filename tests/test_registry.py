"""Broken plugins are isolated, and names resolve to a single component."""

from __future__ import annotations

import logging
import sys
from types import ModuleType, SimpleNamespace

import pytest
import typer

from fseft import plugin as api
from fseft import registry as host
from fseft.cli.main import add_plugin_commands
from fseft.errors import FseftError, PluginError


def method(name, factory="json:dumps"):
    return api.MethodSpec(name=name, factory=factory)


def module(**content):
    plugin = ModuleType("plugin_under_test")
    vars(plugin).update(content)
    return plugin


def providing(*specs):
    @api.hookimpl
    def fseft_methods():
        return specs

    return module(fseft_methods=fseft_methods)


class Entry:
    """An entry point of a fake installed package."""

    def __init__(self, name, content, version="1.0", package=None):
        self.name, self.content = name, content
        self.dist = SimpleNamespace(name=f"fseft-{package or name}", version=version)

    def load(self):
        if isinstance(self.content, BaseException):
            raise self.content
        return self.content


@pytest.fixture
def installed(monkeypatch):
    """Pretend that these packages are installed, and another that works; discover them."""
    monkeypatch.delenv("FSEFT_NO_PLUGINS", raising=False)
    monkeypatch.delenv("FSEFT_DISABLE_PLUGINS", raising=False)
    monkeypatch.delenv("FSEFT_ONLY_PLUGINS", raising=False)

    def install(*entries, **options):
        good = Entry("good", providing(method("good-method")))
        monkeypatch.setattr(host.metadata, "entry_points", lambda **_: [*entries, good])
        return host.discover(**options)

    return install


def row(registry, name):
    return next(entry for entry in registry.plugins if entry.name == name)


@api.hookimpl
def wrong_signature(nonsense):
    return []


@api.hookimpl
def failing():
    raise ValueError("no luck")


@api.hookimpl
def ending():
    raise SystemExit(3)


@api.hookimpl
def ill_typed():
    return [api.MethodSpec(name=3, factory="json:dumps")]


BROKEN = {
    "cannot be imported": (ImportError("no module named torch_geometry"), "torch_geometry"),
    "fails in any way at import": (RuntimeError("boom"), "RuntimeError: boom"),
    "ends the program at import": (SystemExit("no licence"), "SystemExit: no licence"),
    "has a hook of a wrong signature": (module(fseft_methods=wrong_signature), "nonsense"),
    "raises inside a hook": (module(fseft_methods=failing), "ValueError: no luck"),
    "ends the program inside a hook": (module(fseft_methods=ending), "SystemExit: 3"),
    "is written for an API of the future": (module(FSEFT_API=99), "plugin API 99"),
    "returns no specs": (providing("a string"), "str"),
    "provides an invalid name": (providing(method("Bad Name")), "Bad Name"),
    "provides a name that is not text": (
        module(fseft_methods=ill_typed),
        "MethodSpec: name: must be text",
    ),
    "provides a name twice": (
        providing(method("dup"), method("dup")),
        "returned the method 'dup' twice",
    ),
}


@pytest.mark.parametrize(("content", "problem"), BROKEN.values(), ids=BROKEN)
def test_a_plugin_is_broken_and_others_work_if_it(installed, content, problem):
    registry = installed(Entry("bad", content))
    bad = row(registry, "bad")
    assert bad.status == "broken"
    assert problem in " ".join(bad.problems)
    assert registry.method("good-method").name == "good-method"
    assert row(registry, "good").problems == []


def test_a_plugin_that_registers_nothing_has_a_problem(installed):
    registry = installed(Entry("empty", module()), Entry("hollow", providing()))
    for name in ("empty", "hollow"):
        assert row(registry, name).problems == ["registers nothing: no hook returns a component"]


@pytest.mark.parametrize(
    "content",
    [
        RuntimeError("boom"),
        module(fseft_methods=failing),
        module(fseft_methods=wrong_signature),
    ],
)
def test_the_traceback_of_a_broken_plugin_is_logged(installed, content, caplog):
    caplog.set_level(logging.DEBUG, "fseft")
    installed(Entry("bad", content))
    (record,) = [record for record in caplog.records if "the plugin bad" in record.getMessage()]
    assert record.exc_info[2] is not None


def test_a_module_belongs_to_the_package_of_its_plugin(installed):
    registry = installed(Entry("bad", providing(method("mine"))))
    assert registry.package_of("plugin_under_test.layers") == "fseft-bad 1.0"
    assert registry.package_of("fseft.builtin.plugin") == ""
    assert registry.package_of("torch.nn") == ""


def test_an_unknown_hook_is_a_problem_but_the_others_work(installed):
    content = providing(method("new"))

    @api.hookimpl
    def fseft_from_the_future():
        return []

    content.fseft_from_the_future = fseft_from_the_future
    registry = installed(Entry("newer", content))
    assert "fseft_from_the_future" in " ".join(row(registry, "newer").problems)
    assert registry.method("new").name == "new"


def test_a_name_of_two_packages_must_be_qualified(installed):
    first, second = (Entry(name, providing(method("lokr", f"{name}:X"))) for name in ("one", "two"))
    registry = installed(first, second)
    assert "lokr" not in registry.names("method")
    with pytest.raises(
        FseftError, match=r"claimed by 2 packages.*Use fseft-one:lokr or fseft-two:lokr"
    ):
        registry.method("lokr")
    assert registry.method("fseft-two:lokr").factory == "two:X"
    assert all("lokr" in " ".join(row(registry, name).problems) for name in ("one", "two"))


def test_two_packages_may_call_their_entry_points_alike(installed):
    first = Entry("same", providing(method("one")), package="one")
    second = Entry("same", providing(method("two")), package="two")
    registry = installed(first, second)
    assert [plugin.problems for plugin in registry.plugins] == [[], [], [], []]
    assert {"one", "two"} <= set(registry.names("method"))


def test_an_unknown_name_is_answered_with_similar_ones(installed):
    with pytest.raises(FseftError, match="Did you mean good-method"):
        installed().method("god-method")


@pytest.mark.parametrize("name", ["good", "fseft-good"])
def test_a_plugin_can_be_disabled(installed, monkeypatch, name):
    registry = installed(disabled=[name])
    assert row(registry, "good").status == "disabled"
    assert "good-method" not in registry.names("method")
    monkeypatch.setenv("FSEFT_DISABLE_PLUGINS", f"other,{name}")
    assert row(installed(), "good").status == "disabled"


def test_a_disabled_plugin_is_not_even_imported(installed):
    registry = installed(Entry("bad", RuntimeError("imported")), disabled=["bad"])
    assert row(registry, "bad").problems == []


def test_all_plugins_can_be_disabled(installed, monkeypatch):
    monkeypatch.setenv("FSEFT_NO_PLUGINS", "1")
    assert [entry.name for entry in installed().plugins] == ["builtin"]


@pytest.mark.parametrize("name", ["other", "fseft-other"])
def test_all_plugins_but_some_can_be_disabled(installed, monkeypatch, name):
    monkeypatch.setenv("FSEFT_ONLY_PLUGINS", f"{name},third")
    other = Entry("other", providing(method("other-method")))
    registry = installed(other, Entry("bad", RuntimeError("imported")))
    assert [plugin.name for plugin in registry.plugins] == ["builtin", "other"]


def test_the_error_for_an_unknown_name_lists_broken_plugins(installed):
    with pytest.raises(
        FseftError,
        match=r"unknown method 'bad'.*fseft-bad 1.0 is broken \(RuntimeError: no licence\)",
    ):
        installed(Entry("bad", RuntimeError("no licence"))).method("bad")


def test_the_error_for_a_slip_of_the_pen_lists_the_near_names_only(installed):
    with pytest.raises(FseftError, match="unknown method 'god-method'") as caught:
        installed(Entry("bad", RuntimeError("no licence"))).method("god-method")
    assert caught.value.hint == "Did you mean good-method?"


def test_a_hook_without_its_marker_is_a_problem(installed):
    forgotten = ModuleType("forgotten")
    forgotten.fseft_methods = lambda: [method("never-seen")]
    problems = row(installed(Entry("forgotten", forgotten)), "forgotten").problems
    assert problems == ["fseft_methods lacks @hookimpl and is never called"]


def test_a_spec_rejects_unknown_fields():
    with pytest.raises(ValueError, match="acess"):
        api.MethodSpec(name="mine", factory="json:dumps", acess="black-box")


def test_provenance_names_package_and_version(installed):
    source = installed().provenance("method", "good-method")
    assert (source.name, source.distribution, source.version) == (
        "good-method",
        "fseft-good",
        "1.0",
    )


def test_a_factory_is_imported_only_when_its_name_is_selected(installed):
    methods = method("lazy", "not_installed_anywhere:X"), method("json")
    registry = installed(Entry("lazy", providing(*methods)))
    assert row(registry, "lazy").status == "active"
    assert "not_installed_anywhere" not in sys.modules
    with pytest.raises(PluginError, match=r"cannot be imported.*fseft-lazy 1\.0"):
        registry.create("method", "lazy")
    with pytest.raises(
        PluginError, match=r"'json' returned a str without the attribute 'select'.*fseft-lazy 1\.0"
    ):
        registry.create("method", "json", [1])


def greeting(app):
    app.command("hello")(lambda: None)


def raising(app):
    raise KeyError("app")


def hiding_another(app):
    app.command("new")(lambda: None)
    app.command("adapt")(lambda: None)


def without_a_type(app):
    def command(volume: Nowhere):  # noqa: F821
        pass

    app.command("new")(command)


@pytest.mark.parametrize(
    ("commands", "problem"),
    [
        (raising, "KeyError: 'app'"),
        (hiding_another, "the command 'adapt' exists already"),
        (without_a_type, "NameError: name 'Nowhere' is not defined"),
    ],
)
def test_a_plugin_with_a_faulty_command_adds_none(installed, commands, problem):
    entries = {"bad": commands, "polite": greeting}
    registry = installed(
        *(Entry(name, module(fseft_commands=api.hookimpl(f))) for name, f in entries.items())
    )
    app = typer.Typer()
    app.command("adapt")(lambda: None)
    add_plugin_commands(app, registry)
    assert [command.name for command in app.registered_commands] == ["adapt", "hello"]
    assert problem in row(registry, "bad").problems[0]


def test_a_plugin_may_be_an_object(installed):
    class Hooks:
        @api.hookimpl
        def fseft_methods(self):
            return [method("of-an-object")]

    registry = installed(Entry("object", Hooks()))
    assert "of-an-object" in registry.names("method")
