"""The reporters of a run: plugins that observe it, and whose failures never end it."""

from __future__ import annotations

import inspect
import logging
from copy import copy
from typing import TYPE_CHECKING, Any

import pluggy

from fseft import plugin as api
from fseft.errors import PluginError, summarise_exception
from fseft.experiment.callbacks import Callbacks
from fseft.registration import PLUGIN_EXCEPTIONS
from fseft.registry import registry

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from fseft.learn.training.progress import Epoch
    from fseft.schemas import Run

logger = logging.getLogger(__name__)

DEFAULTS = ("fseft:jsonl", "fseft:progress")
"""The reporters of every run: its log and its curves are files of the run."""


class Reporters:
    """The reporters of a run.

    Args:
        reporters: Objects with observer hooks, by the name that messages use.

    Raises:
        PluginError: An object has no hook, or a hook with an unknown argument.
    """

    def __init__(self, reporters: Mapping[str, object]) -> None:
        self._manager = pluggy.PluginManager("fseft")
        self._manager.add_hookspecs(api.ObserverHooks)
        for name, reporter in reporters.items():
            self._register(name, reporter)

    @classmethod
    def create(cls, names: Iterable[str], folder: Path) -> Reporters:
        """Creates reporters by name, and those of every run.

        Args:
            names: Names of the registry; repeated ones are created once.
            folder: The folder of the run.

        Raises:
            FseftError: A name is unknown, or a reporter cannot be imported or used.
        """
        reporters: dict[str, object] = {}
        for name in (*DEFAULTS, *names):
            registration = registry().resolve("reporter", name)
            short, source = registration.spec.name, registration.source
            described = f"the reporter {short!r} of the package {source.package}"
            if described not in reporters:
                qualified = f"{source.distribution}:{short}"
                reporters[described] = registry().create("reporter", qualified, folder)
        return cls(reporters)

    def _register(self, name: str, reporter: object) -> None:
        hint = "Leave it out, or repair its package."
        try:
            self._manager.register(reporter, name=name)
        except PLUGIN_EXCEPTIONS as error:  # pluggy reads all attributes, also properties
            cause = f"{name} cannot be used ({summarise_exception(error)})"
            raise PluginError(cause, hint=hint) from error
        if not self._manager.get_hookcallers(reporter):
            kind = type(reporter).__name__
            cause = f"{name} cannot be used (a {kind} without a method marked with @hookimpl)"
            raise PluginError(cause, hint=hint)

    def notify(self, hook: str, **arguments: Any) -> dict[str, BaseException]:
        """Calls an observer hook of every reporter that has it.

        Args:
            hook: Name of the hook, such as `fseft_epoch_end`.
            **arguments: Arguments of the hook; each reporter receives copies.

        Returns:
            The exceptions that were raised, by the name of the reporter.
        """
        failures: dict[str, BaseException] = {}
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():
            copies = {name: copy(arguments[name]) for name in implementation.argnames}
            try:
                _check_called(implementation.function(**copies))
            except PLUGIN_EXCEPTIONS as error:
                failures[implementation.plugin_name] = error
        return failures


def _check_called(result: object) -> None:
    """Checks that a hook was executed: calling a coroutine or generator function runs nothing.

    Raises:
        TypeError: It was not.
    """
    if inspect.iscoroutine(result) or inspect.isgenerator(result):
        result.close()
        raise TypeError(f"a hook must be a plain function, not one of a {type(result).__name__}")


class ReporterCallbacks(Callbacks):
    """Forwards the events of a run to its reporters; the first failure of each is logged.

    Args:
        names: Names of reporters, in addition to those of every run.
        folder: Folder of the run.

    Attributes:
        run: The document that the reporters receive; set it before the first event.

    Raises:
        FseftError: A name is unknown, or a reporter cannot be created or used.
    """

    run: Run

    def __init__(self, names: Iterable[str], folder: Path) -> None:
        self._reporters = Reporters.create(names, folder)
        self._failed: set[str] = set()

    def _notify(self, hook: str, **arguments: Any) -> None:
        failures = self._reporters.notify(hook, run=self.run, **arguments)
        for name, error in failures.items():
            if name in self._failed:
                continue
            self._failed.add(name)
            reason = summarise_exception(error)
            logger.warning("%s failed in %s (%s); the run continues", name, hook, reason)
            logger.debug("The traceback of %s", name, exc_info=error)

    def start(self, run: Run, epoch: int) -> None:
        """Reports the start of a run, or its resumption at an epoch.

        Args:
            run: The document that the reporters receive.
            epoch: The first epoch to train, from 1; above 1 if the run is resumed.
        """
        self.run = run
        self._notify("fseft_run_start", epoch=epoch)

    def on_epoch_end(self, epoch: Epoch) -> None:
        """Reports an epoch."""
        keys = ("loss", "learning_rate", "seconds")
        metrics = {key: getattr(epoch, key) for key in keys}
        metrics |= {f"{api.DICE_METRIC}{name}": dice for name, dice in epoch.dice.items()}
        self._notify("fseft_epoch_end", epoch=epoch.number, metrics=metrics)

    def on_checkpoint_saved(self, path: Path) -> None:
        """Reports a checkpoint, or the adapter."""
        self._notify("fseft_checkpoint_saved", path=path)

    def on_end(self, outcome: str) -> None:
        """Reports the end of the run."""
        self._notify("fseft_run_end", outcome=outcome)
