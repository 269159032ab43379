"""`fseft clean`: remove caches that are not needed any more."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fseft.cli import console
from fseft.cli.options import DATA, Json, Workspace
from fseft.errors import pluralise


def clean(
    everything: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Remove all preprocessed cases and cached features, also of unchanged files.",
            rich_help_panel=DATA,
        ),
    ] = False,
    workspace: Workspace = Path(),
    as_json: Json = False,
) -> None:
    """Remove preprocessed cases whose files have changed since, or of an earlier version.

    What a running process uses stays. Everything that is removed is made again when it is needed.

    For example:

    fseft clean

    fseft clean --all --workspace study
    """
    from fseft import api

    removed = api.clean(everything=everything, workspace=workspace)
    if as_json:
        console.show_json({"removed": [str(folder) for folder in removed]})
        return
    console.show_lines([f"{pluralise(len(removed), 'folder')} removed", *map(str, removed)])
