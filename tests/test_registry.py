"""A broken package never takes the program down, and a name never means two things."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest
import typer

from fseft import plugin as api
from fseft import registry as host
from fseft.errors import FseftError


def method(name, factory="json:dumps"):
    return api.MethodSpec(name=name, factory=factory)


def module(**content):
    made = ModuleType("plugin_under_test")
    vars(made).update(content)
    return made


def offering(*specs):
    @api.hookimpl
    def fseft_methods():
        return specs

    return module(fseft_methods=fseft_methods)


class Entry:
    """An entry point of a fake installed package."""

    def __init__(self, name, content, version="1.0"):
        self.name, self.content = name, content
        self.dist = SimpleNamespace(name=f"fseft-{name}", version=version)

    def load(self):
        if isinstance(self.content, Exception):
            raise self.content
        return self.content


@pytest.fixture
def installed(monkeypatch):
    """Pretend that these packages are installed beside a good one, and discover."""
    monkeypatch.delenv("FSEFT_NO_PLUGINS", raising=False)
    monkeypatch.delenv("FSEFT_DISABLE_PLUGINS", raising=False)

    def install(*entries, **options):
        good = Entry("good", offering(method("good-method")))
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


BROKEN = {
    "cannot be imported": (ImportError("no module named torch_geometry"), "torch_geometry"),
    "fails in any way at import": (RuntimeError("boom"), "RuntimeError: boom"),
    "has a hook of a wrong signature": (module(fseft_methods=wrong_signature), "nonsense"),
    "raises inside a hook": (module(fseft_methods=failing), "ValueError: no luck"),
    "is written for an API of the future": (module(FSEFT_API=99), "plugin API 99"),
    "returns no specs": (offering("a string"), "str"),
    "offers a name of no good form": (offering(method("Bad Name")), "Bad Name"),
}


@pytest.mark.parametrize(("content", "problem"), BROKEN.values(), ids=BROKEN)
def test_a_package_is_reported_and_others_still_work_if_it(installed, content, problem):
    registry = installed(Entry("bad", content))
    bad = row(registry, "bad")
    assert bad.status == "broken"
    assert problem in " ".join(bad.problems)
    assert registry.method("good-method").name == "good-method"
    assert row(registry, "good").problems == []


def test_an_unknown_hook_is_told_but_the_rest_of_the_package_works(installed):
    content = offering(method("new"))

    @api.hookimpl
    def fseft_from_the_future():
        return []

    content.fseft_from_the_future = fseft_from_the_future
    registry = installed(Entry("newer", content))
    assert "fseft_from_the_future" in " ".join(row(registry, "newer").problems)
    assert registry.method("new").name == "new"


def test_a_name_claimed_twice_is_usable_in_full_only(installed):
    first, second = (Entry(name, offering(method("lokr", f"{name}:X"))) for name in ("one", "two"))
    registry = installed(first, second)
    assert "lokr" not in registry.names("method")
    with pytest.raises(FseftError, match=r"claimed by 2 packages.*Say fseft-one:lokr or fseft-two:lokr"):
        registry.method("lokr")
    assert registry.method("fseft-two:lokr").factory == "two:X"
    assert all("lokr" in " ".join(row(registry, name).problems) for name in ("one", "two"))


def test_an_unknown_name_meets_the_nearest_known(installed):
    with pytest.raises(FseftError, match="Did you mean good-method"):
        installed().method("god-method")


@pytest.mark.parametrize("name", ["good", "fseft-good"])
def test_a_plugin_can_be_left_out(installed, monkeypatch, name):
    registry = installed(disabled=[name])
    assert row(registry, "good").status == "disabled"
    assert "good-method" not in registry.names("method")
    monkeypatch.setenv("FSEFT_DISABLE_PLUGINS", f"other,{name}")
    assert row(installed(), "good").status == "disabled"


def test_a_disabled_plugin_is_not_even_imported(installed):
    registry = installed(Entry("bad", RuntimeError("imported")), disabled=["bad"])
    assert row(registry, "bad").problems == []


def test_all_plugins_can_be_left_out(installed, monkeypatch):
    monkeypatch.setenv("FSEFT_NO_PLUGINS", "1")
    assert [entry.name for entry in installed().plugins] == ["builtin"]


def test_provenance_names_package_and_version(installed):
    source = installed().provenance("method", "good-method")
    assert (source.name, source.distribution, source.version) == ("good-method", "fseft-good", "1.0")


def test_a_factory_is_imported_only_when_its_name_is_chosen(installed):
    registry = installed(Entry("lazy", offering(method("lazy", "not_installed_anywhere:X"), method("json"))))
    assert row(registry, "lazy").status == "active"
    assert "not_installed_anywhere" not in sys.modules
    with pytest.raises(FseftError, match=r"cannot be loaded.*fseft-lazy 1\.0"):
        registry.create("method", "lazy")
    assert registry.create("method", "json", [1]) == "[1]"


def test_a_plugin_adds_commands_and_a_failing_one_is_isolated(installed):
    @api.hookimpl
    def fseft_commands(app):
        app.command("hello")(lambda: None)

    @api.hookimpl
    def failing_commands(app):
        raise KeyError("app")

    registry = installed(
        Entry("bad", module(fseft_commands=failing_commands)),
        Entry("polite", module(fseft_commands=fseft_commands)),
    )
    app = typer.Typer()
    registry.add_commands(app)
    assert [command.name for command in app.registered_commands] == ["hello"]
    assert "KeyError" in row(registry, "bad").problems[0]


def test_a_failing_observer_ends_nothing():
    seen = []

    class Good:
        @api.hookimpl
        def fseft_epoch_end(self, epoch):
            seen.append(epoch)

    class Bad:
        @api.hookimpl
        def fseft_epoch_end(self):
            raise OSError("network is down")

    manager = host.observers([Good(), Bad()])
    problems = host.notify(manager, "fseft_epoch_end", run=None, epoch=3, metrics={})
    assert seen == [3]
    assert problems == ["reporter Bad: OSError: network is down"]
