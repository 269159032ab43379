"""Finds plugins, keeps broken ones apart, and resolves names."""

from __future__ import annotations

import importlib
import os
import re
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import metadata
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from fseft import plugin as api
from fseft.documents import Provenance
from fseft.errors import FseftError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable

    import typer

GROUP = "fseft"
BUILTIN = "fseft.builtin.plugin"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
KINDS: dict[str, tuple[str, type[api.Spec]]] = {
    "method": ("fseft_methods", api.MethodSpec),
    "model": ("fseft_foundation_models", api.FoundationModelSpec),
    "architecture": ("fseft_architectures", api.ArchitectureSpec),
    "reader": ("fseft_dataset_readers", api.ReaderSpec),
    "reporter": ("fseft_reporters", api.ReporterSpec),
}
S = TypeVar("S", bound=api.Spec)


@dataclass
class Plugin:
    """One package's row in `fseft plugins`."""

    name: str
    distribution: str
    version: str
    module: Any = None
    status: str = "active"
    problems: list[str] = field(default_factory=list)
    offers: dict[str, list[str]] = field(default_factory=dict)

    def fail(self, problem: str, *, status: str = "broken") -> None:
        """Note a problem; the rest of the program goes on."""
        self.problems.append(problem)
        self.status = status


@dataclass(frozen=True)
class Offer:
    """A spec and the plugin that it came from."""

    spec: api.Spec
    source: Plugin


class Registry:
    """All names that the installed plugins offer."""

    def __init__(self, plugins: list[Plugin]) -> None:
        self.plugins = plugins
        self._offers: dict[tuple[str, str], list[Offer]] = {}
        manager = pluggy.PluginManager("fseft")
        manager.add_hookspecs(api.RegistrationHooks)
        manager.add_hookspecs(api.ObserverHooks)
        for entry in plugins:
            if entry.module is not None and entry.status == "active":
                self._register(manager, entry)
        self._mark_duplicates()

    def _register(self, manager: pluggy.PluginManager, entry: Plugin) -> None:
        try:
            manager.register(entry.module, name=entry.name)
        except Exception as error:  # a wrong hook signature is the plugin's fault, never ours
            entry.fail(f"{type(error).__name__}: {error}")
            return
        for hook in manager.get_hookcallers(entry.module) or ():
            if not hasattr(api.RegistrationHooks, hook.name) and not hasattr(api.ObserverHooks, hook.name):
                entry.fail(f"knows a hook that this fseft has not: {hook.name}", status="active")
        for kind, (hook_name, spec_type) in KINDS.items():
            for impl in getattr(manager.hook, hook_name).get_hookimpls():
                if impl.plugin is entry.module:
                    self._collect(entry, kind, spec_type, impl.function)

    def _collect(self, entry: Plugin, kind: str, spec_type: type[api.Spec], function: Any) -> None:
        try:
            specs = list(function())
        except Exception as error:  # isolation: one hook call of one plugin
            entry.fail(f"{function.__name__}: {type(error).__name__}: {error}")
            return
        for spec in specs:
            if not isinstance(spec, spec_type):
                entry.fail(f"{function.__name__} returned a {type(spec).__name__}, expected a {spec_type.__name__}")
            elif not NAME.fullmatch(spec.name):
                entry.fail(f"{kind} name {spec.name!r} is not of the form a-z, 0-9, '.', '_', '-'")
            else:
                self._offers.setdefault((kind, spec.name), []).append(Offer(spec, entry))
                entry.offers.setdefault(kind, []).append(spec.name)

    def _mark_duplicates(self) -> None:
        for (kind, name), offers in self._offers.items():
            if len(offers) > 1:
                owners = " and ".join(f"{offer.source.distribution} {offer.source.version}" for offer in offers)
                for offer in offers:
                    offer.source.problems.append(f"{kind} {name!r} is claimed by {owners}")

    def names(self, kind: str) -> list[str]:
        """The short names that can be used; a name claimed twice is usable as `distribution:name` only."""
        return sorted(name for (k, name), offers in self._offers.items() if k == kind and len(offers) == 1)

    def offers(self, kind: str) -> dict[str, Offer]:
        """All offers of one kind, by the name to use: in full where packages share the short one."""
        found = {
            name if len(offers) == 1 else f"{offer.source.distribution}:{name}": offer
            for (k, name), offers in self._offers.items()
            if k == kind
            for offer in offers
        }
        return {name: found[name] for name in sorted(found)}

    def offer(self, kind: str, name: str) -> Offer:
        """Resolve a name.

        Raises:
            FseftError: Unknown (with the nearest names) or claimed by two packages.
        """
        distribution, _, short = name.rpartition(":")
        offers = self._offers.get((kind, short), [])
        if distribution:
            offers = [offer for offer in offers if offer.source.distribution == distribution]
        if len(offers) > 1:
            full = " or ".join(f"{offer.source.distribution}:{short}" for offer in offers)
            raise FseftError(f"the {kind} {name!r} is claimed by {len(offers)} packages", hint=f"Say {full}.")
        if not offers:
            raise FseftError(f"there is no {kind} {name!r}", hint=did_you_mean(name, self.names(kind)))
        return offers[0]

    def specs(self, kind: str, spec_type: type[S]) -> list[S]:
        """All usable specs of one kind, by name."""
        specs = (self.offer(kind, name).spec for name in self.names(kind))
        return [spec for spec in specs if isinstance(spec, spec_type)]

    def method(self, name: str) -> api.MethodSpec:
        """The method of that name."""
        spec = self.offer("method", name).spec
        assert isinstance(spec, api.MethodSpec)  # noqa: S101 - _collect lets no other in
        return spec

    def provenance(self, kind: str, name: str) -> Provenance:
        """Which package and version a name comes from."""
        source = self.offer(kind, name).source
        return Provenance(name=name, distribution=source.distribution, version=source.version)

    def create(self, kind: str, name: str, *arguments: Any) -> Any:
        """Import the factory of a name and call it.

        Raises:
            FseftError: The factory cannot be imported or called: the package is broken or a dependency is missing.
        """
        offer = self.offer(kind, name)
        try:
            return imported(offer.spec.factory)(*arguments)
        except FseftError:
            raise
        except Exception as error:  # whatever a plugin's module or constructor raises
            raise FseftError(
                f"the {kind} {name!r} cannot be loaded ({type(error).__name__}: {error})",
                hint=f"Repair or remove the package {offer.source.distribution} {offer.source.version}.",
            ) from error

    def add_commands(self, app: typer.Typer) -> None:
        """Let every plugin add its commands."""
        for entry in self.plugins:
            function = getattr(entry.module, "fseft_commands", None)
            if function is None or entry.status != "active":
                continue
            try:
                function(app)
            except Exception as error:  # isolation, as above
                entry.fail(f"fseft_commands: {type(error).__name__}: {error}")


def imported(path: str) -> Any:
    """The object at `package.module:Attribute`."""
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


def observers(reporters: Iterable[object]) -> pluggy.PluginManager:
    """A manager for one run's reporters.

    Raises:
        FseftError: A reporter has a hook with arguments that there are not.
    """
    manager = pluggy.PluginManager("fseft")
    manager.add_hookspecs(api.ObserverHooks)
    for reporter in reporters:
        try:
            manager.register(reporter)
        except pluggy.PluginValidationError as error:
            cause = f"the reporter {type(reporter).__name__} does not fit ({error})"
            raise FseftError(cause, hint="Leave it out, or repair its package.") from error
    return manager


def notify(manager: pluggy.PluginManager, hook: str, **arguments: Any) -> list[str]:
    """Call an observer hook on each reporter by itself; an error is returned as a line and ends nothing."""
    problems = []
    for impl in getattr(manager.hook, hook).get_hookimpls():
        try:
            impl.function(**{name: arguments[name] for name in impl.argnames})
        except Exception as error:  # an observer must never change the outcome of a run
            problems.append(f"reporter {type(impl.plugin).__name__}: {type(error).__name__}: {error}")
    return problems


def discover(*, disabled: Iterable[str] = ()) -> Registry:
    """Load the built-ins and every entry point of the group `fseft`.

    `FSEFT_NO_PLUGINS=1` leaves only the built-ins; `FSEFT_DISABLE_PLUGINS=a,b` and `disabled` leave out some.
    """
    blocked = {*disabled, *filter(None, os.environ.get("FSEFT_DISABLE_PLUGINS", "").split(","))}
    plugins = [_builtin()]
    if not os.environ.get("FSEFT_NO_PLUGINS"):
        plugins += [_load(entry, blocked) for entry in metadata.entry_points(group=GROUP)]
    return Registry(plugins)


@lru_cache(maxsize=1)
def registry() -> Registry:
    """The registry of this process; discovered once."""
    return discover()


def _builtin() -> Plugin:
    from fseft import __version__

    return Plugin("builtin", "fseft", __version__, module=importlib.import_module(BUILTIN))


def _load(entry: metadata.EntryPoint, blocked: set[str]) -> Plugin:
    distribution = entry.dist.name if entry.dist else "?"
    loaded = Plugin(entry.name, distribution, entry.dist.version if entry.dist else "?")
    if blocked & {entry.name, distribution}:
        loaded.status = "disabled"
        return loaded
    try:
        loaded.module = entry.load()
    except Exception as error:  # an import may fail in any way
        loaded.fail(f"{type(error).__name__}: {error}")
        return loaded
    wanted = getattr(loaded.module, "FSEFT_API", api.API_VERSION)
    if wanted != api.API_VERSION:
        loaded.fail(f"is written for plugin API {wanted}, this fseft has {api.API_VERSION}")
    return loaded
