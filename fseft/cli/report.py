"""`fseft report`: one HTML page about an adaptation, predictions or a benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fseft.cli.options import DATA, OUTPUT, Json, OpenPage


def report(
    folder: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="Output folder of adapt, predict or benchmark."),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The HTML file. Default: report.html in FOLDER.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Reference labels. Default: those that `fseft evaluate` compared with.",
            rich_help_panel=DATA,
        ),
    ] = None,
    scans: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="The scans. Default: where `fseft predict` read them.",
            rich_help_panel=DATA,
        ),
    ] = None,
    pictures: Annotated[
        bool,
        typer.Option(
            "--pictures/--no-pictures",
            help="Draw the worst, the median and the best case.",
            rich_help_panel=OUTPUT,
        ),
    ] = True,
    open_page: OpenPage = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace a file that is not a page of fseft.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Write one HTML page about an adaptation, predictions or a benchmark.

    Shows scores, the worst, the median and the best case in three planes, volumes, the training
    curve, the plan, and what repeats the run. The page needs no other file and no network.

    For example:

    fseft report segmented --labels livers/labelsTs --open

    fseft report liver-adapter -o liver.html
    """
    from fseft import api
    from fseft.cli.console import ConsoleCallbacks, show_json, show_lines

    written = api.report(
        folder,
        output,
        labels=labels,
        scans=scans,
        pictures=pictures,
        overwrite=overwrite,
        callbacks=ConsoleCallbacks(),
    )
    if as_json:
        show_json({"page": str(written.page), "kind": written.kind})
    else:
        show_lines([f"page: {written.page}"])
    if open_page:
        typer.launch(str(written.page))
