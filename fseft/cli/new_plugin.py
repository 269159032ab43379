"""`fseft plugin`: make a plugin."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fseft.cli import console

plugin = typer.Typer(help="Make a plugin of your own.", no_args_is_help=True)


@plugin.callback()
def _plugin() -> None:
    """Make a plugin of your own."""


@plugin.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of what the plugin offers.")],
    kind: Annotated[
        str,
        typer.Option(
            help="method, model, architecture, reader, reporter, metric, loss, augmentation, schedule "
            "or optimizer."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder of the package. [default: fseft-NAME]"),
    ] = None,
) -> None:
    """Write a package with one working example, tests and CI, ready to be filled and published."""
    from fseft.cli.parsing import choice
    from fseft.scaffold.new_plugin import PREFIX, USAGE, new_plugin

    folder = output or Path(f"{PREFIX}{name}")
    new_plugin(name, choice("--kind", kind, tuple(USAGE)), folder)
    console.show_lines([f"the package {PREFIX}{name}: {folder}"])
    console.note(f"next: pip install -e {folder}; fseft show {kind} {name}; pytest {folder}")
