"""Finds plugins, keeps broken ones apart, and resolves names."""

from __future__ import annotations

import importlib
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import metadata
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from fseft import plugin as api
from fseft.errors import (
    FseftError,
    PluginError,
    did_you_mean,
    fault_of,
    innermost,
    summarise_exception,
)
from fseft.schemas import Provenance

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

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
GIVES: dict[str, tuple[str, ...]] = {
    "method": ("select", "apply"),
    "model": ("is_file",),
    "architecture": ("build", "targets", "features", "head", "replace_head"),
    "reader": ("detects", "read"),
}
"""What is asked of that which the factory of a spec gives."""
FAULTS = (Exception, SystemExit)
"""Whatever the code of a plugin may raise; an interrupt is the user's own."""
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

    @property
    def package(self) -> str:
        """The package that its module, or the class of an object in its place, lies in; empty if not imported."""
        name = getattr(self.module, "__name__", type(self.module).__module__) if self.module else ""
        return name.partition(".")[0]

    @property
    def fault(self) -> str:
        """What keeps it from being used, for who looks for what it offers."""
        package = f"The package {self.distribution} {self.version}"
        return f"{package} is broken ({self.problems[0]})." if self.status == "broken" else ""

    @property
    def remedy(self) -> str:
        """What a user can do about its faults."""
        return f"Repair or remove the package {self.distribution} {self.version}."


@dataclass(frozen=True)
class Registration:
    """A spec and the plugin that it came from."""

    spec: api.Spec
    source: Plugin


class Registry:
    """All names that the installed plugins offer."""

    def __init__(self, plugins: list[Plugin]) -> None:
        self.plugins = plugins
        self._offers: dict[tuple[str, str], list[Registration]] = {}
        manager = pluggy.PluginManager("fseft")
        manager.add_hookspecs(api.RegistrationHooks)
        manager.add_hookspecs(api.ObserverHooks)
        for entry in plugins:
            if entry.module is not None and entry.status == "active":
                self._register(manager, entry)
        self._mark_duplicates()

    def _register(self, manager: pluggy.PluginManager, entry: Plugin) -> None:
        try:
            manager.register(entry.module, name=f"{entry.distribution}:{entry.name}")
        except FAULTS as error:  # a wrong hook signature is the plugin's fault, never ours
            entry.fail(summarise_exception(error))
            return
        known = {hook.name for hook in manager.get_hookcallers(entry.module) or ()}
        for name in sorted({*vars(api.RegistrationHooks), *vars(api.ObserverHooks)} - known):
            if name.startswith("fseft_") and hasattr(entry.module, name):
                entry.fail(
                    f"{name} is not marked with @hookimpl, and so never called", status="active"
                )
        for hook in manager.get_hookcallers(entry.module) or ():
            if not hasattr(api.RegistrationHooks, hook.name) and not hasattr(
                api.ObserverHooks, hook.name
            ):
                entry.fail(f"knows a hook that this fseft has not: {hook.name}", status="active")
        for kind, (hook_name, spec_type) in KINDS.items():
            for impl in getattr(manager.hook, hook_name).get_hookimpls():
                if impl.plugin is entry.module:
                    self._collect(entry, kind, spec_type, impl.function)

    def _collect(self, entry: Plugin, kind: str, spec_type: type[api.Spec], function: Any) -> None:
        try:
            specs = list(function())
        except FAULTS as error:  # isolation: one hook call of one plugin
            entry.fail(f"{function.__name__}: {summarise_exception(error)}")
            return
        for spec in specs:
            if not isinstance(spec, spec_type):
                entry.fail(
                    f"{function.__name__} returned a {type(spec).__name__}, expected a {spec_type.__name__}"
                )
            elif not NAME.fullmatch(spec.name):
                entry.fail(f"{kind} name {spec.name!r} is not of the form a-z, 0-9, '.', '_', '-'")
            elif spec.name in entry.offers.get(kind, ()):
                entry.fail(f"{function.__name__} returned the {kind} {spec.name!r} twice")
            else:
                self._offers.setdefault((kind, spec.name), []).append(Registration(spec, entry))
                entry.offers.setdefault(kind, []).append(spec.name)

    def _mark_duplicates(self) -> None:
        for (kind, name), offers in self._offers.items():
            if len(offers) > 1:
                owners = " and ".join(
                    f"{offer.source.distribution} {offer.source.version}" for offer in offers
                )
                for offer in offers:
                    offer.source.problems.append(f"{kind} {name!r} is claimed by {owners}")

    def names(self, kind: str) -> list[str]:
        """The short names that can be used; a name claimed twice is usable as `distribution:name` only."""
        return sorted(
            name for (k, name), offers in self._offers.items() if k == kind and len(offers) == 1
        )

    def offers(self, kind: str) -> dict[str, Registration]:
        """All offers of one kind, by the name to use: in full where packages share the short one."""
        found = {
            name if len(offers) == 1 else f"{offer.source.distribution}:{name}": offer
            for (k, name), offers in self._offers.items()
            if k == kind
            for offer in offers
        }
        return {name: found[name] for name in sorted(found)}

    def offer(self, kind: str, name: str) -> Registration:
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
            raise FseftError(
                f"the {kind} {name!r} is claimed by {len(offers)} packages", hint=f"Say {full}."
            )
        if not offers:
            hints = (
                did_you_mean(name, self.names(kind)),
                *(one.fault for one in self.plugins if one.fault),
            )
            raise FseftError(f"there is no {kind} {name!r}", hint=" ".join(hints))
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
            PluginError: The factory cannot be imported or called, or gives what cannot be used.
        """
        offer = self.offer(kind, name)
        try:
            made = import_object(offer.spec.factory)(*arguments)
        except FseftError:
            raise
        except FAULTS as error:  # whatever a plugin's module or constructor raises
            cause = f"the {kind} {name!r} cannot be loaded ({summarise_exception(error)})"
            raise PluginError(cause, hint=offer.source.remedy) from error
        if lacking := [
            attribute for attribute in GIVES.get(kind, ()) if not hasattr(made, attribute)
        ]:
            cause = f"the {kind} {name!r} cannot be used: a {type(made).__name__}, which has no {lacking[0]!r}"
            raise PluginError(cause, hint=offer.source.remedy)
        return made

    @contextmanager
    def blamed(self, kind: str, name: str) -> Iterator[None]:
        """Tell in one line what the code of a plugin raises while the context lasts, and where; other errors pass.

        Raises:
            PluginError: It did, in what another package than fseft itself offers under that name.
        """
        offer = self.offer(kind, name)
        package = offer.spec.factory.partition(":")[0].partition(".")[0]
        try:
            yield
        except FAULTS as error:
            own = package != "fseft" and self._origin(error) in ("", package)
            told = fault_of(package, error) if own else ""
            if not told:
                raise
            raise PluginError(
                f"the {kind} {name!r} failed ({told})", hint=offer.source.remedy
            ) from error

    def accused(self, error: BaseException) -> PluginError | None:
        """What to tell of an error that came through the code of a plugin's package, whatever that was asked for."""
        origin = self._origin(error)
        told = fault_of(origin, error) if origin else ""
        if not told or (isinstance(error, OSError) and error.filename):  # a file of the user's
            return None
        plugin = next(plugin for plugin in self.plugins if plugin.package == origin)
        cause = f"the package {plugin.distribution} {plugin.version} failed ({told})"
        return PluginError(cause, hint="Repair or remove it.")

    def _origin(self, error: BaseException) -> str:
        """The package of the plugin that an error arose in: it may have come through others; empty for fseft's own."""
        return innermost(error, {plugin.package for plugin in self.plugins} - {"", "fseft"})


def import_object(path: str) -> Any:
    """The object at `package.module:Attribute`."""
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


def discover(*, disabled: Iterable[str] = ()) -> Registry:
    """Load the built-ins and every entry point of the group `fseft`.

    `FSEFT_NO_PLUGINS=1` leaves only the built-ins, `FSEFT_ONLY_PLUGINS=a,b` these plugins beside them, and
    `FSEFT_DISABLE_PLUGINS=a,b` and `disabled` leave out some. Names are those of plugins or of their packages.
    """
    blocked = {*disabled, *_listed("FSEFT_DISABLE_PLUGINS")}
    only = _listed("FSEFT_ONLY_PLUGINS") if "FSEFT_ONLY_PLUGINS" in os.environ else None
    found = () if os.environ.get("FSEFT_NO_PLUGINS") else metadata.entry_points(group=GROUP)
    wanted = (entry for entry in found if only is None or only & _names(entry))
    return Registry([_builtin(), *(_load(entry, blocked) for entry in wanted)])


def _listed(variable: str) -> set[str]:
    return {*filter(None, os.environ.get(variable, "").split(","))}


def _names(entry: metadata.EntryPoint) -> set[str]:
    return {entry.name, entry.dist.name} if entry.dist else {entry.name}


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
    if blocked & _names(entry):
        loaded.status = "disabled"
        return loaded
    try:
        loaded.module = entry.load()
    except FAULTS as error:  # an import may fail in any way
        loaded.fail(summarise_exception(error))
        return loaded
    wanted = getattr(loaded.module, "FSEFT_API", api.API_VERSION)
    if wanted != api.API_VERSION:
        loaded.fail(f"is written for plugin API {wanted}, this fseft has {api.API_VERSION}")
    return loaded
