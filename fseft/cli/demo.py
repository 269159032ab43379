"""`fseft demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fseft.cli.options import Seed, positive


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for all that it makes.")
    ] = Path("demo"),
    minutes: Annotated[
        float, typer.Option(callback=positive, help="Training time of each method.")
    ] = 1.2,
    seed: Seed = 0,
) -> None:
    """Try the whole chain on made-up scans: about four minutes on two cores, no network."""
    from fseft.cli.callbacks import StepCallbacks
    from fseft.cli.console import out, show_table
    from fseft.cli.training_progress import training_progress
    from fseft.demo.run import DemoRequest, run_demo, table_rows

    with training_progress("training") as on_step:
        callbacks = StepCallbacks(on_step)
        done = run_demo(DemoRequest(output, minutes=minutes, seed=seed), callbacks)
    columns = ("method", "trained parameters", "adapter MB", "Dice known", "Dice new")
    rows = [
        (str(name), f"{count:,}", f"{size:.2f}", _score(known), _score(new))
        for name, count, size, known, new in table_rows(done.results)
    ]
    show_table(columns, rows, right=columns[1:])
    out.print(f"page: {done.page}", soft_wrap=True)


def _score(value: object) -> str:
    return "-" if value is None else f"{value:.3f}"
