"""`fseft adapt`: what a person reads before it takes time."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from fseft.cli.adapt import _AdaptCallbacks


@pytest.mark.parametrize(
    ("trains", "unknown"), [(True, "new to the model"), (False, "never segmented")]
)
def test_what_each_structure_starts_from_is_shown_before_training(trains, unknown, capsys):
    method = SimpleNamespace(spec=SimpleNamespace(trains=trains))
    config = SimpleNamespace(
        support=SimpleNamespace(cases=("a",)),
        labels={"lkidney": 1, "tumour": 2},
        matched={"lkidney": "left kidney"},
        request=SimpleNamespace(method=method),
    )
    _AdaptCallbacks(print, show_config=True).on_start(config, 1)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["lkidney", "left", "kidney"] in rows
    assert ["tumour", "nothing:", *unknown.split()] in rows
