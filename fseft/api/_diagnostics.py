"""Checks the installation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fseft.api._resolve import as_workspace

if TYPE_CHECKING:
    from fseft.api._resolve import WorkspaceLike
    from fseft.diagnostics.checks import Check


def check_installation(
    dataset: str | Path | None = None, *, workspace: WorkspaceLike = "."
) -> list[Check]:
    """Checks packages, devices, plugins, models, disk, and a dataset.

    Args:
        dataset: Folder of a dataset to look at; None for none.
        workspace: Where results are written.

    Returns:
        The result of each check, with a remedy where something can be done.

    Examples:
        >>> {check.status for check in check_installation()} <= {"ok", "warning", "error"}
        True
    """
    from fseft.diagnostics import checks

    folder = None if dataset is None else Path(dataset)
    return list(checks.check_installation(as_workspace(workspace), folder))
