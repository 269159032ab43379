"""The reporters of a run: told of what happens, and never able to end it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

from fseft import plugin as api
from fseft.errors import FseftError, in_one_line
from fseft.registry import FAULTS

if TYPE_CHECKING:
    from collections.abc import Iterable


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
        except FAULTS as error:  # an observer must never change the outcome of a run
            problems.append(f"reporter {type(impl.plugin).__name__}: {in_one_line(error)}")
    return problems
