"""`fseft phantom`: write synthetic datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from fseft.cli.options import DATA, Json, Seed
from fseft.errors import pluralise


def phantom(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="New folder for the dataset.")],
    cases: Annotated[
        int, typer.Option(min=0, help="Number of labelled cases.", rich_help_panel=DATA)
    ] = 10,
    test_cases: Annotated[
        int,
        typer.Option(min=0, help="Number of cases in imagesTs and labelsTs.", rich_help_panel=DATA),
    ] = 0,
    modality: Annotated[
        Literal["ct", "mr"], typer.Option(help="Modality.", rich_help_panel=DATA)
    ] = "ct",
    structures: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME,...",
            help="Annotated structures, as in liver,spleen. Default: all.",
            rich_help_panel=DATA,
        ),
    ] = None,
    shift: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Domain shift, as between scanners, from 0 (none) to 1 (strong).",
            rich_help_panel=DATA,
        ),
    ] = 0.0,
    seed: Seed = 0,
    embedded: Annotated[
        bool,
        typer.Option(
            "--embedded",
            help="Write the datasets that phantom-tiny is pre-trained on.",
            rich_help_panel=DATA,
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a dataset of synthetic scans in the layout of nnU-Net, to try other commands on.

    For example:

    fseft phantom livers --cases 10 --test-cases 3

    fseft phantom livers-mr --modality mr --structures liver,spleen
    """
    from fseft import api
    from fseft.cli.console import ConsoleCallbacks, show_json, show_lines
    from fseft.cli.parsing import names

    written = api.write_phantoms(
        folder,
        cases=cases,
        test_cases=test_cases,
        modality=modality,
        structures=names(structures),
        shift=shift,
        seed=seed,
        embedded=embedded,
        callbacks=ConsoleCallbacks(),
    )
    if as_json:
        show_json(
            [
                {"folder": str(path), "cases": count, "test_cases": test_cases}
                for path, count in written.items()
            ]
        )
        return
    show_lines(
        f"{pluralise(count, 'labelled case')} and {test_cases} for testing: {path}"
        for path, count in written.items()
    )
