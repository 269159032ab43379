"""`fseft demo`: the whole workflow on synthetic phantoms."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fseft.cli.options import TRAINING, Json, OpenPage, Seed, output_folder, positive


def demo(
    output: Annotated[
        Path,
        output_folder("Folder for all results."),
    ] = Path("demo"),
    minutes: Annotated[
        float | None,
        typer.Option(
            metavar="MINUTES",
            callback=positive,
            help="Time budget of each training. Default: a fixed number of steps.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    seed: Seed = 0,
    open_page: OpenPage = False,
    as_json: Json = False,
) -> None:
    """Run the whole workflow on synthetic scans: minutes on a CPU, without internet access.

    For example:

    fseft demo

    fseft demo -o demo --seed 1 --open
    """
    from fseft.cli.callbacks import StepCallbacks
    from fseft.cli.console import show_json, show_lines, show_table
    from fseft.cli.training_progress import training_progress
    from fseft.demo.page import table_rows
    from fseft.demo.results import DemoRequest
    from fseft.demo.run import run_demo

    request = DemoRequest(output, minutes=minutes, seed=seed)
    with training_progress("training") as on_step:
        result = run_demo(request, StepCallbacks(on_step))
    if open_page:
        typer.launch(str(result.page))
    rows = table_rows(result.results)
    if as_json:
        keys = ("method", "trained_parameters", "adapter_mb", "dice_known", "dice_new")
        methods = [dict(zip(keys, row, strict=True)) for row in rows]
        show_json({"methods": methods, "page": str(result.page)})
        return
    columns = ("method", "trained parameters", "adapter MB", "Dice known", "Dice new")
    cells = []
    for method, parameters, size, *dice in rows:
        cells.append((str(method), f"{parameters:,}", f"{size:.2f}", *map(_number, dice)))
    show_table(columns, cells, right=columns[1:])
    show_lines([f"page: {result.page}"])


def _number(value: str | float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
