"""Discovers plugins, isolates broken ones, and resolves names to specs."""

from __future__ import annotations

import importlib
import os
from functools import lru_cache
from importlib import metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from fseft import plugin as api
from fseft.errors import FseftError, PluginError, did_you_mean, summarise_exception
from fseft.registration import (
    PLUGIN_EXCEPTIONS,
    Plugin,
    Registration,
    check_hooks,
    spec_problem,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fseft.schemas import Provenance

GROUP = "fseft"
BUILTIN = "fseft.builtin.plugin"
KINDS: dict[str, tuple[str, type[api.Spec]]] = {
    "method": ("fseft_methods", api.MethodSpec),
    "model": ("fseft_foundation_models", api.FoundationModelSpec),
    "architecture": ("fseft_architectures", api.ArchitectureSpec),
    "reader": ("fseft_dataset_readers", api.ReaderSpec),
    "reporter": ("fseft_reporters", api.ReporterSpec),
    "metric": ("fseft_metrics", api.MetricSpec),
    "loss": ("fseft_losses", api.LossSpec),
    "augmentation": ("fseft_augmentations", api.AugmentationSpec),
    "schedule": ("fseft_schedules", api.ScheduleSpec),
    "optimizer": ("fseft_optimizers", api.OptimizerSpec),
    "exporter": ("fseft_exporters", api.ExporterSpec),
    "format": ("fseft_formats", api.FormatSpec),
    "planner": ("fseft_planners", api.PlannerSpec),
}
"""The kinds of components: the hook that returns their specs, and the type of these."""
REQUIRED_ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "method": ("select", "apply"),
    "model": ("is_file",),
    "architecture": ("build", "targets", "features", "head", "replace_head"),
    "reader": ("detects", "read"),
    "augmentation": ("draw", "apply"),
}
"""The attributes that the object from a spec's factory must have, by kind."""
S = TypeVar("S", bound=api.Spec)


class Registry:
    """The components of all plugins, by kind and name.

    Args:
        plugins: The loaded plugins. Specs of active ones are collected; the problems of a plugin
            are recorded in its row and never raised.
    """

    def __init__(self, plugins: list[Plugin]) -> None:
        self.plugins = plugins
        self._registrations: dict[tuple[str, str], list[Registration]] = {}
        manager = pluggy.PluginManager("fseft")
        manager.add_hookspecs(api.RegistrationHooks)
        manager.add_hookspecs(api.ObserverHooks)
        for plugin in plugins:
            if plugin.module is not None and plugin.status == "active":
                self._register(manager, plugin)
        self._mark_duplicates()

    def _register(self, manager: pluggy.PluginManager, plugin: Plugin) -> None:
        try:
            manager.register(plugin.module, name=f"{plugin.distribution}:{plugin.name}")
        except PLUGIN_EXCEPTIONS as error:  # such as an unknown argument in a hook's signature
            plugin.fail(summarise_exception(error), error=error)
            return
        check_hooks(manager, plugin)
        for kind, (hook, spec_type) in KINDS.items():
            for implementation in getattr(manager.hook, hook).get_hookimpls():
                if implementation.plugin is plugin.module:
                    self._collect(plugin, kind, spec_type, implementation.function)
        if not (plugin.provides or plugin.problems or hasattr(plugin.module, "fseft_commands")):
            plugin.fail("registers nothing: no hook returns a component", status="active")

    def _collect(self, plugin: Plugin, kind: str, spec_type: type[api.Spec], hook: Any) -> None:
        """Calls a registration hook of a plugin and adds its valid specs."""
        try:
            specs = list(hook())
        except PLUGIN_EXCEPTIONS as error:
            plugin.fail(f"{hook.__name__}: {summarise_exception(error)}", error=error)
            return
        for spec in specs:
            names = plugin.provides.get(kind, ())
            if problem := spec_problem(spec, kind, spec_type, hook.__name__, names):
                plugin.fail(problem)
                continue
            self._registrations.setdefault((kind, spec.name), []).append(Registration(spec, plugin))
            plugin.provides.setdefault(kind, []).append(spec.name)

    def _mark_duplicates(self) -> None:
        for (kind, name), registrations in self._registrations.items():
            if len(registrations) == 1:
                continue
            sources = [registration.source for registration in registrations]
            owners = " and ".join(source.package for source in sources)
            for source in sources:
                source.problems.append(f"{kind} {name!r} is claimed by {owners}")

    def names(self, kind: str) -> list[str]:
        """Returns the unambiguous names of one kind, sorted.

        A name that two packages claim is missing: it resolves as `distribution:name` only.
        """
        return sorted(
            name
            for (other_kind, name), registrations in self._registrations.items()
            if other_kind == kind and len(registrations) == 1
        )

    def registrations(self, kind: str) -> dict[str, Registration]:
        """Returns all registrations of one kind by name, sorted.

        Names that several packages claim are qualified as `distribution:name`.
        """
        by_name: dict[str, Registration] = {}
        for (other_kind, name), registrations in self._registrations.items():
            if other_kind != kind:
                continue
            for registration in registrations:
                qualified = f"{registration.source.distribution}:{name}"
                by_name[name if len(registrations) == 1 else qualified] = registration
        return dict(sorted(by_name.items()))

    def resolve(self, kind: str, name: str) -> Registration:
        """Returns the registration of a name.

        Args:
            kind: A key of `KINDS`.
            name: `name`, or `distribution:name`.

        Raises:
            FseftError: The name is unknown, or claimed by several packages.
        """
        distribution, _, short = name.rpartition(":")
        candidates = [
            registration
            for registration in self._registrations.get((kind, short), [])
            if distribution in ("", registration.source.distribution)
        ]
        if not candidates:
            hint = did_you_mean(name, self.names(kind))
            hints = [hint, *self._broken_plugins(short, is_near=hint.startswith("Did you mean"))]
            raise FseftError(f"unknown {kind} {name!r}", hint=" ".join(hints))
        if len(candidates) > 1:
            qualified = [f"{candidate.source.distribution}:{short}" for candidate in candidates]
            raise FseftError(
                f"the {kind} {name!r} is claimed by {len(candidates)} packages",
                hint=f"Use {' or '.join(qualified)}.",
            )
        return candidates[0]

    def _broken_plugins(self, name: str, *, is_near: bool) -> Iterator[str]:
        """Yields a hint for each broken plugin that may provide a name.

        Args:
            name: The unknown name.
            is_near: Whether another name is near; only a plugin that is called alike matters then.
        """
        for plugin in self.plugins:
            if plugin.status == "broken" and (not is_near or name in plugin.package):
                yield f"The package {plugin.package} is broken ({plugin.problems[0]})."

    def package_of(self, module: str) -> str:
        """Returns the installed package, with its version, that a module belongs to.

        Args:
            module: Full name of the module.

        Returns:
            The package; empty for a module that belongs to no plugin.
        """
        for plugin in self.plugins:
            top = getattr(plugin.module, "__name__", "").partition(".")[0]
            if top == module.partition(".")[0] and plugin.distribution != "fseft":
                return plugin.package
        return ""

    def specs(self, kind: str, spec_type: type[S]) -> list[S]:
        """Returns the specs with an unambiguous name, sorted by it.

        Args:
            kind: Kind of component, a key of `KINDS`.
            spec_type: Specs of other types are left out.
        """
        specs = []
        for name in self.names(kind):
            spec = self.resolve(kind, name).spec
            if isinstance(spec, spec_type):
                specs.append(spec)
        return specs

    def method(self, name: str) -> api.MethodSpec:
        """Returns the spec of a method."""
        spec = self.resolve("method", name).spec
        assert isinstance(spec, api.MethodSpec)  # noqa: S101 - checked when it was collected
        return spec

    def file_format(self, kind: str, name: str) -> api.FileFormatSpec:
        """Returns the spec of an exporter or a format whose packages are installed.

        Raises:
            FseftError: A package is missing, or as for `resolve`.
        """
        spec = self.resolve(kind, name).spec
        assert isinstance(spec, api.FileFormatSpec)  # noqa: S101 - checked when it was collected
        missing = [package for package in spec.packages if find_spec(package) is None]
        if missing:
            raise FseftError(
                f"the format {name!r} needs {', '.join(missing)}",
                hint=f"Run `pip install '{spec.extra}'`." if spec.extra else "Install the package.",
            )
        return spec

    def provenance(self, kind: str, name: str) -> Provenance:
        """Returns the package and version that a name comes from.

        Args:
            kind: Kind of component, a key of `KINDS`.
            name: Short name, or `distribution:name`.

        Raises:
            FseftError: As for `resolve`.
        """
        return self.resolve(kind, name).source.provenance(name)

    def provenance_of(self, kind: str, spec: api.Spec) -> Provenance:
        """Returns the package and version that a spec comes from.

        Args:
            kind: Kind of component, a key of `KINDS`.
            spec: A registered spec.

        Raises:
            FseftError: No installed package has registered this spec.
        """
        for registration in self._registrations.get((kind, spec.name), []):
            if registration.spec == spec:
                return registration.source.provenance(spec.name)
        raise FseftError(f"the {kind} {spec.name!r} is not installed", hint="Install its package.")

    def factory(self, kind: str, name: str) -> Any:
        """Imports the factory of a spec.

        Args:
            kind: A key of `KINDS`.
            name: The name of the component.

        Raises:
            PluginError: The factory cannot be imported.
        """
        registration = self.resolve(kind, name)
        try:
            return import_object(registration.spec.factory)
        except PLUGIN_EXCEPTIONS as error:  # whatever the plugin's module raises
            cause = f"the {kind} {name!r} cannot be imported ({summarise_exception(error)})"
            raise PluginError(cause, hint=registration.source.remedy) from error

    def create(self, kind: str, name: str, *arguments: Any) -> Any:
        """Imports the factory of a spec and calls it.

        Exceptions that the factory raises are not caught.

        Args:
            kind: A key of `KINDS`.
            name: The name of the component.
            *arguments: The arguments of the factory.

        Returns:
            The component, such as a method or an architecture.

        Raises:
            PluginError: The factory cannot be imported, or its result lacks a required attribute.
        """
        component = self.factory(kind, name)(*arguments)
        self.check(kind, name, component)
        return component

    def check(self, kind: str, name: str, component: object) -> None:
        """Checks that the result of a factory has the attributes that its kind requires.

        Args:
            kind: Kind of component, a key of `KINDS`.
            name: Name of the component, for the message.
            component: What the factory returned.

        Raises:
            PluginError: An attribute is missing.
        """
        for attribute in REQUIRED_ATTRIBUTES.get(kind, ()):
            if not hasattr(component, attribute):
                cause = (
                    f"the factory of the {kind} {name!r} returned a {type(component).__name__} "
                    f"without the attribute {attribute!r}"
                )
                raise PluginError(cause, hint=self.resolve(kind, name).source.remedy)


def import_object(path: str) -> Any:
    """Imports the object at `package.module:Attribute`.

    Examples:
        >>> import_object("json:dumps")([1])
        '[1]'
    """
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


def discover(*, disabled: Iterable[str] = ()) -> Registry:
    """Loads the built-in components and the plugins in the entry-point group `fseft`.

    Environment variables restrict which plugins are loaded; they take names of entry points or of
    packages, separated by commas: `FSEFT_NO_PLUGINS=1` loads the built-in components only,
    `FSEFT_ONLY_PLUGINS=a,b` these plugins only, `FSEFT_DISABLE_PLUGINS=a,b` all but these.

    Args:
        disabled: More plugins to disable.
    """
    blocked = {*disabled, *_names_in("FSEFT_DISABLE_PLUGINS")}
    only = _names_in("FSEFT_ONLY_PLUGINS") if "FSEFT_ONLY_PLUGINS" in os.environ else None
    none = bool(os.environ.get("FSEFT_NO_PLUGINS"))
    entry_points = () if none else metadata.entry_points(group=GROUP)
    plugins = [
        _load(entry_point, blocked)
        for entry_point in entry_points
        if only is None or only & _names_of(entry_point)
    ]
    return Registry([_builtin(), *plugins])


def _names_in(variable: str) -> set[str]:
    return {name for name in os.environ.get(variable, "").split(",") if name}


def _names_of(entry_point: metadata.EntryPoint) -> set[str]:
    names = {entry_point.name}
    return names | {entry_point.dist.name} if entry_point.dist else names


@lru_cache(maxsize=1)
def registry() -> Registry:
    """Returns the registry of this process, which is discovered at the first call."""
    return discover()


def _builtin() -> Plugin:
    from fseft.version import __version__

    return Plugin("builtin", "fseft", __version__, module=importlib.import_module(BUILTIN))


def _load(entry_point: metadata.EntryPoint, blocked: set[str]) -> Plugin:
    distribution = entry_point.dist.name if entry_point.dist else "?"
    version = entry_point.dist.version if entry_point.dist else "?"
    plugin = Plugin(entry_point.name, distribution, version)
    if blocked & _names_of(entry_point):
        plugin.status = "disabled"
        return plugin
    try:
        plugin.module = entry_point.load()
    except PLUGIN_EXCEPTIONS as error:
        plugin.fail(summarise_exception(error), error=error)
        return plugin
    api_version = getattr(plugin.module, "FSEFT_API", api.API_VERSION)
    if api_version != api.API_VERSION:
        plugin.fail(f"requires plugin API {api_version}, this fseft has {api.API_VERSION}")
    return plugin
