"""Installed plugins, and the checks of what they register."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fseft import plugin as api
from fseft.schemas import Provenance

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pluggy

logger = logging.getLogger(__name__)

NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
PLUGIN_EXCEPTIONS = (Exception, SystemExit)
"""The exceptions of a plugin that are isolated: all but an interrupt, which comes from the user."""


@dataclass
class Plugin:
    """An installed plugin: a row of `fseft plugins`.

    Attributes:
        name: The name of its entry point.
        distribution: The installed package.
        version: The version of the package.
        module: The module, or object, with the hooks; None if it is disabled or fails to import.
        status: `active`, `disabled` or `broken`.
        problems: The problems found at registration, a line each.
        provides: The names of its components, by kind.
    """

    name: str
    distribution: str
    version: str
    module: Any = None
    status: str = "active"
    problems: list[str] = field(default_factory=list)
    provides: dict[str, list[str]] = field(default_factory=dict)

    def fail(
        self, problem: str, *, status: str = "broken", error: BaseException | None = None
    ) -> None:
        """Records a problem and sets the status; other plugins are not affected.

        The traceback of `error` is logged for `--debug`.

        Args:
            problem: One line for `fseft plugins`.
            status: The new status: "broken", or "active" if other components remain usable.
            error: The exception that caused the problem.
        """
        self.problems.append(problem)
        self.status = status
        if error is not None:
            logger.debug("the plugin %s: %s", self.name, problem, exc_info=error)

    def provenance(self, name: str) -> Provenance:
        """Returns the source of one of its components."""
        return Provenance(name=name, distribution=self.distribution, version=self.version)

    @property
    def package(self) -> str:
        """The installed package with its version."""
        return f"{self.distribution} {self.version}"

    @property
    def remedy(self) -> str:
        """The hint of an error that the plugin causes."""
        return f"Repair or remove the package {self.package}."


@dataclass(frozen=True)
class Registration:
    """A spec and the plugin that provides it."""

    spec: api.Spec
    source: Plugin


def check_hooks(manager: pluggy.PluginManager, plugin: Plugin) -> None:
    """Records hooks that are never called: those without `@hookimpl`, and unknown ones.

    Args:
        manager: The plugin manager in which the plugin is registered.
        plugin: The plugin, whose `problems` are extended.
    """
    specified = {
        name
        for name in {*vars(api.RegistrationHooks), *vars(api.ObserverHooks)}
        if name.startswith("fseft_")
    }
    implemented = {caller.name for caller in manager.get_hookcallers(plugin.module) or ()}
    for name in sorted(specified - implemented):
        if hasattr(plugin.module, name):
            problem = f"{name} lacks @hookimpl and is never called"
            plugin.fail(problem, status="active")
    for name in sorted(implemented - specified):
        problem = f"implements {name}, a hook that this version of fseft does not call"
        plugin.fail(problem, status="active")


def spec_problem(
    spec: object, kind: str, spec_type: type[api.Spec], hook: str, names: Iterable[str]
) -> str:
    """Returns the problem of a spec that a hook returned, or an empty string.

    Args:
        spec: What the hook returned.
        kind: Kind of component, for the message.
        spec_type: Type that specs of the kind must have.
        hook: Name of the hook.
        names: Names of this kind that the plugin has registered before.
    """
    if not isinstance(spec, spec_type):
        return f"{hook} returned a {type(spec).__name__}, expected a {spec_type.__name__}"
    if not NAME.fullmatch(spec.name):
        return f"{kind} name {spec.name!r} is not of the form a-z, 0-9, '.', '_', '-'"
    if spec.name in names:
        return f"{hook} returned the {kind} {spec.name!r} twice"
    return ""
