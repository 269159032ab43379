"""The reporters of a run: they observe it through callbacks, and their errors never end it."""

from __future__ import annotations

import inspect
import logging
from copy import copy
from typing import TYPE_CHECKING, Any

import pluggy

from fseft import plugin as api
from fseft.errors import PluginError, summarise_exception
from fseft.experiment.callbacks import Callbacks
from fseft.registry import PLUGIN_EXCEPTIONS, registry

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from fseft.learn.training.progress import Epoch
    from fseft.schemas import Run

logger = logging.getLogger(__name__)

LOG = "fseft:jsonl"
"""The reporter that every run has: its log is one of the files of a run."""


class ReporterCallbacks(Callbacks):
    """Forward the events of a run to its reporters; the error of a reporter is logged once and ends nothing.

    Args:
        names: Names of reporters, in addition to the log that every run has.
        folder: Folder of the run.

    Attributes:
        run: The document that the reporters receive; set it before the first event.

    Raises:
        FseftError: A name is unknown, or a reporter cannot be created or used.
    """

    run: Run

    def __init__(self, names: Iterable[str], folder: Path) -> None:
        self._manager = observers_of(names, folder)
        self._logged: set[str] = set()

    def _notify(self, hook: str, **arguments: Any) -> None:
        for problem in notify(self._manager, hook, run=self.run, **arguments):
            if problem not in self._logged:  # a reporter that fails at each epoch is logged once
                logger.warning("%s", problem)
            self._logged.add(problem)

    def on_start(self, config: Any, first_epoch: int) -> None:
        """Report the start of the run."""
        del config
        self._notify("fseft_run_start", epoch=first_epoch)

    def on_epoch_end(self, epoch: Epoch) -> None:
        """Report an epoch."""
        keys = ("loss", "learning_rate", "seconds")
        metrics = {key: getattr(epoch, key) for key in keys}
        self._notify("fseft_epoch_end", epoch=epoch.number, metrics=metrics)

    def on_checkpoint_saved(self, path: Path) -> None:
        """Report a checkpoint, or the adapter."""
        self._notify("fseft_checkpoint_saved", path=path)

    def on_end(self, outcome: str) -> None:
        """Report the end of the run."""
        self._notify("fseft_run_end", outcome=outcome)


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
        except PLUGIN_EXCEPTIONS as error:  # pluggy reads all attributes, which may be properties
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
