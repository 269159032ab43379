"""A broken package never takes the program down, and a name never means two things."""

from __future__ import annotations

import re
import sys
from types import ModuleType, SimpleNamespace

import pytest
import typer

from fseft import plugin as api
from fseft import registry as host
from fseft.cli.main import add_plugin_commands
from fseft.errors import FseftError, PluginError
from fseft.experiment.reporters import notify, observers


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

    def __init__(self, name, content, version="1.0", package=None):
        self.name, self.content = name, content
        self.dist = SimpleNamespace(name=f"fseft-{package or name}", version=version)

    def load(self):
        if isinstance(self.content, BaseException):
            raise self.content
        return self.content


@pytest.fixture
def installed(monkeypatch):
    """Pretend that these packages are installed beside a good one, and discover."""
    monkeypatch.delenv("FSEFT_NO_PLUGINS", raising=False)
    monkeypatch.delenv("FSEFT_DISABLE_PLUGINS", raising=False)
    monkeypatch.delenv("FSEFT_ONLY_PLUGINS", raising=False)

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
    "returns no specs": (offering("a string"), "str"),
    "offers a name of no good form": (offering(method("Bad Name")), "Bad Name"),
    "offers a name that is no text": (
        module(fseft_methods=ill_typed),
        "MethodSpec.name: Input should be a valid str",
    ),
    "offers one name twice": (
        offering(method("dup"), method("dup")),
        "returned the method 'dup' twice",
    ),
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
    with pytest.raises(
        FseftError, match=r"claimed by 2 packages.*Use fseft-one:lokr or fseft-two:lokr"
    ):
        registry.method("lokr")
    assert registry.method("fseft-two:lokr").factory == "two:X"
    assert all("lokr" in " ".join(row(registry, name).problems) for name in ("one", "two"))


def test_two_packages_may_call_their_entry_points_alike(installed):
    entries = [Entry("same", offering(method(name)), package=name) for name in ("one", "two")]
    registry = installed(*entries)
    assert [entry.problems for entry in registry.plugins] == [[]] * 4
    assert {"one", "two"} <= set(registry.names("method"))


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


@pytest.mark.parametrize("name", ["other", "fseft-other"])
def test_plugins_can_be_left_out_but_for_some(installed, monkeypatch, name):
    monkeypatch.setenv("FSEFT_ONLY_PLUGINS", f"{name},third")
    found = installed(
        Entry("other", offering(method("other-method"))), Entry("bad", RuntimeError("imported"))
    )
    assert [entry.name for entry in found.plugins] == ["builtin", "other"]


def test_who_looks_for_what_a_broken_plugin_offers_is_told_so(installed):
    with pytest.raises(
        FseftError,
        match=r"unknown method 'bad'.*fseft-bad 1.0 is broken \(RuntimeError: no licence\)",
    ):
        installed(Entry("bad", RuntimeError("no licence"))).method("bad")


def test_a_hook_that_is_not_marked_is_told(installed):
    forgotten = ModuleType("forgotten")
    forgotten.fseft_methods = lambda: [method("never-seen")]
    problems = row(installed(Entry("forgotten", forgotten)), "forgotten").problems
    assert problems == ["fseft_methods lacks @hookimpl and is never called"]


def test_a_key_that_a_spec_has_not_is_refused():
    with pytest.raises(ValueError, match="acess"):
        api.MethodSpec(name="mine", factory="json:dumps", acess="black-box")


def test_provenance_names_package_and_version(installed):
    source = installed().provenance("method", "good-method")
    assert (source.name, source.distribution, source.version) == (
        "good-method",
        "fseft-good",
        "1.0",
    )


def test_a_factory_is_imported_only_when_its_name_is_chosen(installed):
    methods = method("lazy", "not_installed_anywhere:X"), method("json")
    registry = installed(Entry("lazy", offering(*methods)))
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
def test_a_plugin_adds_commands_and_one_that_cannot_adds_none(installed, commands, problem):
    entries = {"bad": commands, "polite": greeting}
    registry = installed(
        *(Entry(name, module(fseft_commands=api.hookimpl(f))) for name, f in entries.items())
    )
    app = typer.Typer()
    app.command("adapt")(lambda: None)
    add_plugin_commands(app, registry)
    assert [command.name for command in app.registered_commands] == ["adapt", "hello"]
    assert problem in row(registry, "bad").problems[0]


def test_a_failing_observer_ends_nothing():
    seen = []

    class Good:
        @api.hookimpl
        def fseft_epoch_end(self, epoch, metrics):
            seen.append((epoch, dict(metrics)))
            metrics.clear()  # its own copy

    class Bad:
        @api.hookimpl
        def fseft_epoch_end(self):
            raise OSError("network is down")

    class Final:
        @api.hookimpl
        def fseft_epoch_end(self):
            raise SystemExit(1)

    class Waits:
        @api.hookimpl
        async def fseft_epoch_end(self):
            pass

    reporters = {"good": Good(), "bad": Bad(), "final": Final(), "waits": Waits(), "other": Good()}
    problems = notify(
        observers(reporters), "fseft_epoch_end", run=None, epoch=3, metrics={"loss": 0.5}
    )
    assert seen == [(3, {"loss": 0.5})] * 2
    for told in (
        r"bad failed at fseft_epoch_end \(OSError: network is down\); the run continues",
        "final failed at fseft_epoch_end .SystemExit: 1",
        "waits failed at fseft_epoch_end .TypeError: it gave a coroutine, which does nothing by itself",
    ):
        assert [problem for problem in problems if re.match(told, problem)], told
    assert len(problems) == 3


class TakesMore:
    @api.hookimpl
    def fseft_epoch_end(self, accuracy):
        pass


class Forgetful:
    def fseft_epoch_end(self, epoch):
        pass


@pytest.mark.parametrize(
    ("reporter", "told"),
    [
        (TakesMore(), "accuracy"),
        (Forgetful(), "a Forgetful without a function marked with @hookimpl"),
        (None, "a NoneType without"),
    ],
)
def test_a_reporter_that_cannot_be_used_is_refused(reporter, told):
    with pytest.raises(
        FseftError, match=rf"the reporter 'x' cannot be used \(.*{told}.*Leave it out, or repair"
    ):
        observers({"the reporter 'x'": reporter})


def test_a_plugin_may_be_an_object(installed):
    class Offers:
        @api.hookimpl
        def fseft_methods(self):
            return [method("of-an-object")]

    registry = installed(Entry("object", Offers()))
    assert "of-an-object" in registry.names("method")
