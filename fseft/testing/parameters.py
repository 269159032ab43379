"""Checks as parameters of a test."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from _pytest.mark import ParameterSet

S = TypeVar("S")


def told(check: Callable[[S], None], subject: S) -> None:
    """Run a check; where it fails, what it checks is said first."""
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
    run: Callable[[Callable[[S], None], S], None] = told,
) -> list[ParameterSet]:
    """One parameter for each check.

    Args:
        label: What is checked, in the name of the test.
        checks: Each says in its docstring what it checks.
        subject: What is checked.
        xfail: Check -> why it must fail.
        run: Runs a check on the subject.

    Raises:
        ValueError: There is no check of a name in `xfail`.
    """
    reasons = dict(xfail or {})
    by_name = {check.__name__: check for check in checks}
    if unknown := reasons.keys() - by_name.keys():
        raise ValueError(f"there are no checks {sorted(unknown)}")
    return [
        pytest.param(
            partial(run, check, subject),
            id=f"{label}-{name}",
            marks=[pytest.mark.xfail(reason=reasons[name], strict=True)] if name in reasons else [],
        )
        for name, check in by_name.items()
    ]
