"""Conversion of checks to parameters of a test."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from _pytest.mark import ParameterSet

S = TypeVar("S")


def run_check(check: Callable[[S], None], subject: S) -> None:
    """Runs a check, and prepends its description to the message of a failure.

    Args:
        check: Function of the subject, described by its docstring.
        subject: Object to check.
    """
    try:
        check(subject)
    except AssertionError as error:
        error.args = (f"{' '.join((check.__doc__ or check.__name__).split())} {error}",)
        raise


def parameters(
    label: str,
    checks: Iterable[Callable[[S], None]],
    subject: S,
    xfail: Mapping[str, str] | None,
    run: Callable[[Callable[[S], None], S], None] = run_check,
) -> list[ParameterSet]:
    """Returns one parameter for each check, a function without arguments that runs it.

    Args:
        label: Prefix of the test's name.
        checks: Functions of the subject, described by their docstrings.
        subject: Object to check.
        xfail: Reason for each check that must fail.
        run: Runs a check on the subject.

    Raises:
        ValueError: `xfail` contains an unknown check.
    """
    reasons = dict(xfail or {})
    by_name = {check.__name__: check for check in checks}
    if unknown := reasons.keys() - by_name.keys():
        raise ValueError(f"unknown checks {sorted(unknown)}")
    return [
        pytest.param(
            partial(run, check, subject),
            id=f"{label}-{name}",
            marks=[pytest.mark.xfail(reason=reasons[name], strict=True)] if name in reasons else [],
        )
        for name, check in by_name.items()
    ]
