"""Reporters observe a run; their failures are logged and never end it."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from fseft.errors import PluginError
from fseft.experiment.reporters import ReporterCallbacks, Reporters
from fseft.plugin import hookimpl


class Records:
    """A reporter that works."""

    def __init__(self):
        self.epochs = []

    @hookimpl
    def fseft_epoch_end(self, epoch, metrics):
        self.epochs.append((epoch, dict(metrics)))
        metrics.clear()  # its own copy


class Fails:
    @hookimpl
    def fseft_epoch_end(self):
        raise OSError("network is down")


class Exits:
    @hookimpl
    def fseft_epoch_end(self):
        raise SystemExit(1)


class IsAsynchronous:
    @hookimpl
    async def fseft_epoch_end(self):
        pass


class RequiresAnUnknownArgument:
    @hookimpl
    def fseft_epoch_end(self, accuracy):
        pass


class LacksTheMarker:
    def fseft_epoch_end(self, epoch):
        pass


def test_all_reporters_are_notified_whichever_fail():
    first, last = Records(), Records()
    failing = {"fails": Fails(), "exits": Exits(), "asynchronous": IsAsynchronous()}
    reporters = Reporters({"first": first, **failing, "last": last})
    failures = reporters.notify("fseft_epoch_end", run=None, epoch=3, metrics={"loss": 0.5})
    assert first.epochs == last.epochs == [(3, {"loss": 0.5})]
    kinds = {name: type(error) for name, error in failures.items()}
    assert kinds == {"fails": OSError, "exits": SystemExit, "asynchronous": TypeError}


def test_the_first_failure_of_a_reporter_is_logged_with_its_traceback(
    tmp_path, monkeypatch, caplog
):
    reporters = Reporters({"the reporter 'x'": Fails()})
    monkeypatch.setattr(Reporters, "create", lambda *_: reporters)
    callbacks = ReporterCallbacks((), tmp_path)
    callbacks.run = None
    with caplog.at_level(logging.DEBUG, "fseft"):
        for number in (1, 2):
            epoch = SimpleNamespace(
                number=number, loss=0.5, learning_rate=1e-3, seconds=2.0, dice={}
            )
            callbacks.on_epoch_end(epoch)
    warning, traceback = caplog.records
    assert warning.levelname == "WARNING"
    assert warning.getMessage() == (
        "the reporter 'x' failed in fseft_epoch_end (OSError: network is down); the run continues"
    )
    assert traceback.levelname == "DEBUG"
    assert isinstance(traceback.exc_info[1], OSError)


@pytest.mark.parametrize(
    ("reporter", "reason"),
    [
        (RequiresAnUnknownArgument(), "accuracy"),
        (LacksTheMarker(), "a LacksTheMarker without a method marked with @hookimpl"),
        (None, "a NoneType without"),
    ],
)
def test_an_object_that_is_not_a_reporter_is_refused(reporter, reason):
    message = rf"the reporter 'x' cannot be used \(.*{reason}.*Leave it out, or repair"
    with pytest.raises(PluginError, match=message):
        Reporters({"the reporter 'x'": reporter})
