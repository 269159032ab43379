"""The built-in metrics pass the checks of a metric, and a broken one fails them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from fseft import registry as plugins
from fseft.plugin import MetricSpec, hookimpl
from fseft.testing import metric_checks
from fseft.testing.metrics import prefers_a_perfect_prediction, returns_a_number

BUILT_IN = ("dice", "nsd", "hd95", "assd", "volume_difference")


@pytest.mark.parametrize("check", [check for name in BUILT_IN for check in metric_checks(name)])
def test_a_built_in_metric_passes(check):
    check()


@pytest.fixture
def inverted(monkeypatch):
    """Install Dice with the wrong direction, and a metric that is never defined."""
    common = {"title": "M", "direction": "lower", "missing": 0.0}
    dice = MetricSpec(name="inverted", factory="fseft.builtin.metrics.dice:dice", **common)
    undefined = MetricSpec(name="undefined", factory="tests.testing.test_metrics:nothing", **common)

    @hookimpl
    def fseft_metrics():
        return [dice, undefined]

    package = SimpleNamespace(name="fseft-inverted", version="1.0")
    module = SimpleNamespace(fseft_metrics=fseft_metrics)
    entry_point = SimpleNamespace(name="inverted", dist=package, load=lambda: module)
    monkeypatch.delenv("FSEFT_NO_PLUGINS")
    monkeypatch.setattr(plugins.metadata, "entry_points", lambda **_: [entry_point])
    plugins.registry.cache_clear()
    yield
    plugins.registry.cache_clear()


def nothing(masks):
    del masks


@pytest.mark.usefixtures("inverted")
def test_a_wrong_direction_and_an_undefined_value_fail():
    with pytest.raises(AssertionError):
        prefers_a_perfect_prediction("inverted")
    with pytest.raises(AssertionError):
        returns_a_number("undefined")
