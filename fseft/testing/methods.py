"""The checks of a method, as parameters of a test."""

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
    toys: Mapping[str, TinyNetwork] = TINY_NETWORKS,
    layers: Iterable[str] = LAYERS,
    xfail: Mapping[str, str] | None = None,
    tolerance: float = 1e-5,
) -> list[ParameterSet]:
    """The checks of a method, to be called one by one.

    ```python
    @pytest.mark.parametrize("check", method_checks("my-method"))
    def test_my_method(check):
        check()
    ```

    A check is skipped where the method refuses the architecture; one network at least must fit. That merging is exact
    is also checked on convolutions that no toy has, unless the method refuses them, or cannot merge exactly at all.

    Args:
        method: Its name in the registry.
        config: Keys of its configuration, where they are not the defaults.
        decoder: What becomes of the decoder beside it.
        toys: The networks to try it on, by architecture.
        layers: The convolutions to try merging on, of `fseft.testing.layers.LAYERS`.
        xfail: Check -> why the method cannot keep it; it must then fail.
        tolerance: By how much outputs may differ that need not be equal bit for bit.

    Raises:
        ValueError: There is no check of a name in `xfail`.
    """
    label = [f"{key}={value}" for key, value in (config or {}).items()]
    found, subjects = [], []
    for name, toy in toys.items():
        subject = MethodHarness(method, dict(config or {}), decoder, name, toy, tolerance)
        found += parameters("-".join((method, *label, name, decoder)), CHECKS, subject, xfail, _run)
        subjects.append(subject)
    cannot_merge = merges_exactly.__name__ in (xfail or {})
    for name in () if cannot_merge else layers:
        lone: MethodHarness = LayerSubject(
            method, dict(config or {}), decoder, name, CUBE, tolerance
        )
        found += parameters("-".join((method, *label, name)), (merges_exactly,), lone, None, _run)
    whole = pytest.param(
        partial(_fits_a_network, subjects), id="-".join((method, *label, "fits_a_network"))
    )
    return [*found, whole] if len(subjects) > 1 else found


def _run(check: Callable[[MethodHarness], None], subject: MethodHarness) -> None:
    if subject.refusal:
        pytest.skip(subject.refusal)
    run_check(check, subject)


def _fits_a_network(subjects: Sequence[MethodHarness]) -> None:
    """A method that refuses every architecture would skip all checks."""
    assert not all(subject.refusal for subject in subjects), (
        f"no network fits: {subjects[0].refusal}"
    )
