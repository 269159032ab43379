"""`fseft doctor`: check the installation, the devices, the plugins, the disk and a dataset."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fseft.cli import console
from fseft.cli.options import Json, Workspace

_MISTAKES = 2
"""Exit status if a check failed."""


def doctor(
    dataset: Annotated[
        Path | None, typer.Argument(metavar="[DATASET]", help="A dataset to look at as well.")
    ] = None,
    workspace: Workspace = Path(),
    as_json: Json = False,
) -> None:
    """Check the installation, the devices, the plugins, the disk and a dataset.

    Nothing is changed. The exit status is 2 if a check failed.

    For example:

    fseft doctor

    fseft doctor livers --json
    """
    from fseft import api

    with console.working("checking the installation"):
        checks = api.check_installation(dataset, workspace=workspace)
    if as_json:
        console.show_json([asdict(check) for check in checks])
    else:
        rows = [
            (check.name, check.status, " ".join(filter(None, (check.detail, check.remedy))))
            for check in checks
        ]
        console.show_table(("check", "status", "detail"), rows)
    if any(check.status == "error" for check in checks):
        raise typer.Exit(_MISTAKES)
