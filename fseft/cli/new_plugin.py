"""`fseft plugin`: write the package of a new plugin."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, get_args

import typer

from fseft.cli import console
from fseft.cli.help import HelpGroup
from fseft.cli.options import output_folder

Kind = Literal[
    "method",
    "model",
    "architecture",
    "reader",
    "reporter",
    "metric",
    "loss",
    "augmentation",
    "schedule",
    "optimizer",
    "exporter",
    "format",
    "planner",
]

plugin = typer.Typer(cls=HelpGroup, help="Write the package of a new plugin.", no_args_is_help=True)


@plugin.callback()
def _plugin() -> None:
    """Writes the package of a new plugin."""


@plugin.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the component.")],
    kind: Annotated[
        Kind,
        typer.Option(metavar="KIND", help=f"Kind of the component: {', '.join(get_args(Kind))}."),
    ],
    output: Annotated[
        Path | None,
        output_folder("Folder of the package. Default: fseft-NAME."),
    ] = None,
) -> None:
    """Write a package with a working example, tests and CI.

    For example:

    fseft plugin new my-method --kind method

    fseft plugin new my-metric --kind metric --output my-metric
    """
    from fseft import api

    folder = api.new_plugin(name, kind, output)
    console.show_lines([f"the package fseft-{name}: {folder}"])
    console.note(f"next: pip install -e {folder}; fseft show {kind} {name}; pytest {folder}")
