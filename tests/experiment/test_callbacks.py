"""Callbacks observe a call, several at a time, and do nothing by default."""

from __future__ import annotations

import inspect
from contextlib import contextmanager

from fseft.experiment.callbacks import CallbackList, Callbacks

EVENTS = [name for name in vars(Callbacks) if name.startswith("on_")]


class Recorder(Callbacks):
    """Record each event with its arguments, and the items of each stage."""

    def __init__(self):
        self.events = []

    def __getattribute__(self, name):
        if name in EVENTS:
            return lambda *arguments: self.events.append((name, *arguments))
        return super().__getattribute__(name)

    @contextmanager
    def progress(self, description, total):
        yield lambda item: self.events.append((description, total, item))


def test_callbacks_do_nothing_by_default():
    for name in EVENTS:
        event = getattr(Callbacks(), name)
        assert event(*(None for _ in inspect.signature(event).parameters)) is None
    with Callbacks().progress("preprocess", 2) as advance:
        advance("case_1")


def test_a_list_forwards_every_event_to_all_in_their_order():
    recorders = Recorder(), Recorder()
    callbacks = CallbackList(recorders)
    for name in EVENTS:
        event = getattr(callbacks, name)
        event(*inspect.signature(event).parameters)
    with callbacks.progress("preprocess", 2) as advance:
        advance("case_1")
    first, second = (recorder.events for recorder in recorders)
    assert first == second
    assert [event[0] for event in first] == [*EVENTS, "preprocess"]
    assert first[-1] == ("preprocess", 2, "case_1")
