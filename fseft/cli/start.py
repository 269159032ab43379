"""`fseft start`: describe a folder of scans by a dataset.json, and show the next commands."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fseft.cli import console
from fseft.cli.console import ConsoleCallbacks
from fseft.cli.options import DATA, OUTPUT, Json
from fseft.cli.parsing import label_names
from fseft.errors import pluralise

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fseft.planning.dataset_description import DatasetDescription

_MOST_LISTED = 3  # cases in the printed dataset.json


def start(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder of scans and labels, in any layout.")
    ],
    modality: Annotated[
        Literal["ct", "mr"] | None,
        typer.Option(help="Modality. Default: guessed from the intensities.", rich_help_panel=DATA),
    ] = None,
    labels: Annotated[
        str,
        typer.Option(
            metavar="VALUE=NAME,...",
            help="Names of the structures, as in 1=liver,2=tumour.",
            rich_help_panel=DATA,
        ),
    ] = "",
    yes: Annotated[
        bool,
        typer.Option("--yes", "-y", help="Write dataset.json at once.", rich_help_panel=OUTPUT),
    ] = False,
    as_json: Json = False,
) -> None:
    """Describe a folder of scans by a dataset.json, and show the next commands for it.

    Pairs images and labels by their names, as images/a.nii.gz and labels/a.nii.gz, a.nii.gz and
    a_seg.nii.gz, or a/t1.nii.gz and a/mask.nii.gz. Shows dataset.json, and writes it after a
    confirmation. A folder in a layout of docs/datasets.md needs none.

    For example:

    fseft start scans

    fseft start scans --modality mr --labels 1=liver,2=tumour --yes
    """
    from fseft import api

    description = api.describe_dataset(
        folder,
        modality=modality or "",
        labels=label_names("--labels", labels),
        callbacks=ConsoleCallbacks(),
    )
    if description is not None and not as_json:
        console.show_lines(_summary(description))
    is_written = description is not None and (yes or (not as_json and _confirmed(description.path)))
    if description is not None and is_written:
        description.write()
    if as_json:
        path = str(description.path) if description else None
        content = description.content if description else None
        console.show_json({"file": path, "written": is_written, "content": content})
    elif description is None or is_written:
        console.show_lines(_next_commands(folder))
    else:
        console.note(f"{description.path} was not written; pass --yes to write it")


def _summary(description: DatasetDescription) -> Iterator[str]:
    labelled = f"{description.labelled} with a label"
    yield f"{description.path.parent}: {pluralise(description.cases, 'case')}, {labelled}"
    reason = f"{description.modality_reason}; change it by --modality"
    yield f"channels: {', '.join(description.channels)} ({reason})"
    for name, count in description.structures.items():
        yield f"  {name}: in {pluralise(count, 'case')}"
    if any(name.startswith("class_") for name in description.structures):
        yield "Name the structures by --labels 1=liver,2=tumour."
    yield f"{description.path.name}:"
    yield from json.dumps(_shortened(description.content), indent=2, ensure_ascii=False).split("\n")


def _shortened(content: Mapping[str, object]) -> Mapping[str, object]:
    """Returns the content with the first cases of a long list only."""
    cases = content.get("dataset")
    if not isinstance(cases, dict) or len(cases) <= _MOST_LISTED:
        return content
    first = dict(list(cases.items())[:_MOST_LISTED])
    return {**content, "dataset": {**first, "...": f"{len(cases) - _MOST_LISTED} more"}}


def _confirmed(path: Path) -> bool:
    if not sys.stdin.isatty():
        return False
    return typer.confirm(f"Write {path}?", err=True)


def _next_commands(folder: Path) -> Sequence[str]:
    name = shlex.quote(str(folder))
    adapter = shlex.quote(f"{folder.resolve().name}-adapter")
    return [
        "Next:",
        f"  fseft plan {name} --model phantom-tiny",
        f"  fseft adapt {name} -o {adapter}",
        f"  fseft predict SCANS -o segmented --adapter {adapter}",
        "  fseft report segmented",
    ]
