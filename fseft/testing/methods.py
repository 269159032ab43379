"""Checks of a method, as parameters of a test."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from fseft.testing.checks import CHECKS, merges_exactly
from fseft.testing.layers import CUBE, LAYERS, LayerSubject
from fseft.testing.method_harness import MethodHarness
from fseft.testing.parameters import parameters, run_check
from fseft.testing.tiny_networks import TINY_NETWORKS, TinyNetwork

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from _pytest.mark import ParameterSet

    from fseft.schemas import PartMode


def method_checks(
    method: str,
    *,
    config: Mapping[str, Any] | None = None,
    decoder: PartMode = "frozen",
    networks: Mapping[str, TinyNetwork] = TINY_NETWORKS,
    layers: Iterable[str] = LAYERS,
    xfail: Mapping[str, str] | None = None,
    tolerance: float = 1e-5,
) -> list[ParameterSet]:
    """Returns the checks of a method, as parameters of a test that calls each.

    ```python
    @pytest.mark.parametrize("check", method_checks("my-method"))
    def test_my_method(check):
        check()
    ```

    A check is skipped on an architecture that the method refuses; it must accept at least one.
    Exact merging is also checked on convolutions that no tiny network contains, unless the method
    refuses them or `xfail` contains `merges_exactly`.

    Args:
        method: Name of the method in the registry.
        config: Settings of the method that differ from the defaults.
        decoder: Treatment of the decoder.
        networks: Tiny networks to check on, by architecture.
        layers: Convolutions to check merging on, of `fseft.testing.layers.LAYERS`.
        xfail: Reason for each check that must fail.
        tolerance: Maximum difference of outputs that need not be equal bit for bit.

    Raises:
        ValueError: `xfail` contains an unknown check.
    """
    settings = dict(config or {})
    label = "-".join((method, *(f"{key}={value}" for key, value in settings.items())))
    checks, subjects = [], []
    for name, tiny in networks.items():
        subject = MethodHarness(method, settings, decoder, name, tiny, tolerance)
        checks += parameters(f"{label}-{name}-{decoder}", CHECKS, subject, xfail, _run)
        subjects.append(subject)
    if merges_exactly.__name__ not in (xfail or {}):
        for name in layers:
            layer: MethodHarness = LayerSubject(method, settings, decoder, name, CUBE, tolerance)
            checks += parameters(f"{label}-{name}", (merges_exactly,), layer, None, _run)
    if len(subjects) > 1:
        accepts = partial(_accepts_a_network, subjects)
        checks.append(pytest.param(accepts, id=f"{label}-accepts_a_network"))
    return checks


def _run(check: Callable[[MethodHarness], None], subject: MethodHarness) -> None:
    """Runs a check, or skip it if the method refuses the architecture."""
    if subject.refusal:
        pytest.skip(subject.refusal)
    run_check(check, subject)


def _accepts_a_network(subjects: Sequence[MethodHarness]) -> None:
    """Asserts that not all checks are skipped."""
    refusals = [subject.refusal for subject in subjects]
    assert not all(refusals), f"the method accepts no network: {refusals[0]}"
