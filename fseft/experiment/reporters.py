"""The reporters of a run: told of what happens, and never able to end it."""

from __future__ import annotations

import inspect
from copy import copy
from typing import TYPE_CHECKING, Any

import pluggy

from fseft import plugin as api
from fseft.errors import PluginError, summarise_exception
from fseft.registry import PLUGIN_EXCEPTIONS, registry

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

LOG = "fseft:jsonl"
"""The reporter that every run has: its log is one of the files of a run."""


def observers_of(names: Iterable[str], folder: Path) -> pluggy.PluginManager:
    """A manager for the reporters of these names, and for the log; each comes once.

    Args:
        names: Of reporters.
        folder: Of the run.

    Raises:
        FseftError: A name is unknown, or a reporter cannot be made or used.
    """
    made: dict[str, object] = {}
    for name in (LOG, *names):
        offer = registry().resolve("reporter", name)
        short, package = offer.spec.name, offer.source.distribution
        told = f"the reporter {short!r} of the package {package} {offer.source.version}"
        if told not in made:
            made[told] = registry().create("reporter", f"{package}:{short}", folder)
    return observers(made)


def observers(reporters: Mapping[str, object]) -> pluggy.PluginManager:
    """A manager for one run's reporters.

    Args:
        reporters: By what they are called where they fail.

    Raises:
        PluginError: A reporter has no hook, or one with arguments that there are not.
    """
    manager = pluggy.PluginManager("fseft")
    manager.add_hookspecs(api.ObserverHooks)
    for told, reporter in reporters.items():
        try:
            manager.register(reporter, name=told)
        except (
            PLUGIN_EXCEPTIONS
        ) as error:  # pluggy looks at all attributes, whose code is the plugin's
            raise _unfit(told, summarise_exception(error)) from error
        if not manager.get_hookcallers(reporter):
            raise _unfit(
                told, f"a {type(reporter).__name__} without a function marked with @hookimpl"
            )
    return manager


def _unfit(told: str, why: str) -> PluginError:
    return PluginError(
        f"{told} cannot be used ({why})", hint="Leave it out, or repair its package."
    )


def notify(manager: pluggy.PluginManager, hook: str, **arguments: Any) -> list[str]:
    """Call an observer hook on each reporter by itself; an error is returned as a line and ends nothing."""
    problems = []
    for impl in getattr(manager.hook, hook).get_hookimpls():
        try:
            answer = impl.function(**{name: copy(arguments[name]) for name in impl.argnames})
            if inspect.isgenerator(answer) or inspect.iscoroutine(answer):
                answer.close()
                raise TypeError(f"it gave a {type(answer).__name__}, which does nothing by itself")
        except PLUGIN_EXCEPTIONS as error:  # an observer must never change the outcome of a run
            reason = summarise_exception(error)
            problems.append(f"{impl.plugin_name} failed at {hook} ({reason}); the run continues")
    return problems
