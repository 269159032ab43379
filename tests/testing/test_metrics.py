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


WRONG = {
    "inverted": ("fseft.builtin.metrics.dice:dice", "lower"),
    "signed-higher": ("fseft.builtin.metrics.volume_difference:volume_difference", "higher"),
    "signed-lower": ("fseft.builtin.metrics.volume_difference:volume_difference", "lower"),
    "distance-zero": ("fseft.builtin.metrics.assd:average_symmetric_surface_distance", "zero"),
    "constant": ("tests.testing.test_metrics:one", "higher"),
}
"""Metric -> its function, and a direction that is wrong."""


@pytest.fixture
def inverted(monkeypatch):
    """Install metrics with a wrong direction, and a metric that is never defined."""
    specs = [
        MetricSpec(name=name, title="M", factory=factory, direction=direction, missing=0.0)
        for name, (factory, direction) in WRONG.items()
    ]
    factory = "tests.testing.test_metrics:nothing"
    undefined = MetricSpec(
        name="undefined", title="M", factory=factory, direction="lower", missing=0.0
    )

    @hookimpl
    def fseft_metrics():
        return [*specs, undefined]

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


def one(masks):
    del masks
    return 1.0


@pytest.mark.usefixtures("inverted")
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_direction_fails(name):
    with pytest.raises(AssertionError):
        prefers_a_perfect_prediction(name)


@pytest.mark.usefixtures("inverted")
def test_an_undefined_value_fails():
    with pytest.raises(AssertionError):
        returns_a_number("undefined")
