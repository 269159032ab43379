"""`fseft export`: write an adapted network in the format of another tool."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fseft.cli import completion, console
from fseft.cli.options import DATA, OUTPUT, Json, Workspace, output_folder


def export(
    adapter: Annotated[
        Path,
        typer.Argument(
            metavar="ADAPTER",
            help="adapter.safetensors, or the folder of its run.",
            autocompletion=completion.adapters,
        ),
    ],
    to: Annotated[
        str,
        typer.Option(
            metavar="FORMAT",
            help="Format (`fseft show exporter` lists them).",
            autocompletion=completion.exporters,
            rich_help_panel=OUTPUT,
        ),
    ],
    output: Annotated[
        Path,
        output_folder("Folder to write."),
    ],
    scores: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="metrics.json of `fseft evaluate`, for the model card.",
            rich_help_panel=DATA,
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace an existing folder.", rich_help_panel=OUTPUT),
    ] = False,
    workspace: Workspace = Path(),
    as_json: Json = False,
) -> None:
    """Export an adapted network to ONNX, TorchScript, safetensors or a MONAI bundle.

    The folder has the merged network, preprocessing.json and a model card. The package fseft-nnunet
    adds the format nnunet.

    For example:

    fseft export runs/livers/phantom-tiny/lora-k5-s0 --to onnx -o liver-onnx

    fseft export liver.safetensors --to nnunet -o liver-nnunet
    """
    from fseft import api

    with console.working(f"exporting {adapter}"):
        folder = api.export(
            adapter, to, output, scores=scores, overwrite=overwrite, workspace=workspace
        )
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    if as_json:
        console.show_json({"output": str(folder), "format": to, "files": files})
        return
    console.show_lines([f"{to}: {folder}", *(f"  {name}" for name in files)])
