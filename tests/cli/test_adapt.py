"""`fseft adapt`: what a person reads before it takes time."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from fseft.cli.adapt import _AdaptCallbacks
from fseft.schemas import Decision


@pytest.mark.parametrize(
    ("trains", "unknown"), [(True, "new to the model"), (False, "never segmented")]
)
def test_what_each_structure_starts_from_is_shown_before_training(trains, unknown, capsys):
    method = SimpleNamespace(spec=SimpleNamespace(trains=trains))
    budget = Decision(name="time budget", value="8 minutes", reason="500 steps")
    config = SimpleNamespace(
        support=SimpleNamespace(cases=("a",)),
        labels={"lkidney": 1, "tumour": 2},
        matched={"lkidney": "left kidney"},
        request=SimpleNamespace(method=method, minutes=None),
        plan=SimpleNamespace(decisions=(budget,)),
    )
    _AdaptCallbacks(print, show_config=True).on_start(config, 1)
    shown = capsys.readouterr().out
    assert "time budget: 8 minutes (500 steps)" in shown
    rows = [line.split() for line in shown.splitlines()]
    assert ["lkidney", "left", "kidney"] in rows
    assert ["tumour", "-,", *unknown.split()] in rows
