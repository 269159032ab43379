"""Options that several commands share, so that they read and behave alike everywhere."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from fseft.errors import FseftError

DatasetFolder = Annotated[
    Path,
    typer.Argument(
        metavar="DATASET", help="Dataset folder (nnU-Net, Decathlon, imagesTr + labelsTr, ...)."
    ),
]
Model = Annotated[
    str, typer.Option(help="Foundation model; none: random weights. `fseft models` lists them.")
]
Memory = Annotated[str, typer.Option(help="Memory that training may take, for example 12GB.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Seed = Annotated[int, typer.Option(min=0, help="Decides all that is random.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes, one case each.")]
Cluster = Annotated[
    str,
    typer.Option(
        metavar="tcp://HOST:PORT",
        help="A running dask scheduler, whose workers take the cases instead.",
    ),
]
Workspace = Annotated[Path, typer.Option(help="Folder for fingerprints, caches, runs and models.")]
Strict = Annotated[
    bool, typer.Option("--strict", help="Refuse incomplete datasets instead of warning.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def more_than_zero(
    context: typer.Context, param: typer.CallbackParam, value: float | None
) -> float | None:
    """Refuse 0 and less, which a range of floats in Typer would let in, and what is no number.

    Raises:
        FseftError: It is.
    """
    if context.resilient_parsing or value is None or 0 < value < math.inf:
        return value
    option = str(param.name).replace("_", "-")
    raise FseftError(f"--{option} {value:g}: must be a number above 0", hint="Give another value.")


Minutes = Annotated[
    float | None,
    typer.Option(
        callback=more_than_zero,
        help="Fit the training to this time budget. Measuring and preprocessing come before it; a pass for features "
        "is ended first.",
    ),
]
LearningRate = Annotated[float, typer.Option(callback=more_than_zero, help="Of AdamW.")]
