"""Checks as parameters of a test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from _pytest.mark import ParameterSet


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
