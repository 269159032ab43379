"""Checks as parameters of a test."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from _pytest.mark import ParameterSet

S = TypeVar("S")


def parameters(
    label: str, checks: Mapping[str, Callable[[], None]], xfail: Mapping[str, str] | None
) -> list[ParameterSet]:
    """One parameter for each check.

    Args:
        label: What is checked.
        checks: By name.
        xfail: Check -> why it must fail.

    Raises:
        ValueError: There is no check of a name in `xfail`.
    """
    reasons = dict(xfail or {})
    if unknown := reasons.keys() - checks.keys():
        raise ValueError(f"there are no checks {sorted(unknown)}")
    return [
        pytest.param(
            check,
            id=f"{label}-{name}",
            marks=[pytest.mark.xfail(reason=reasons[name], strict=True)] if name in reasons else [],
        )
        for name, check in checks.items()
    ]


def told(check: Callable[[S], None], subject: S) -> None:
    """Run a check; where it fails, what it checks is said first."""
    try:
        check(subject)
    except AssertionError as error:
        error.args = (f"{' '.join((check.__doc__ or check.__name__).split())} {error}",)
        raise
