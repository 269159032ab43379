"""`fseft pretrain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fseft.cli.options import Cluster, Device, LearningRate, Minutes, Seed, Workers, Workspace


def pretrain(
    datasets: Annotated[
        list[Path], typer.Argument(metavar="DATASETS...", help="Dataset folders; each may annotate other structures.")
    ],
    out: Annotated[str, typer.Option(help="Name of the new model.")],
    architecture: Annotated[str, typer.Option(help="Network.")] = "resunet",
    labels: Annotated[
        str, typer.Option(help="Structures to learn, by any of their names, for example liver,left kidney; empty: all.")
    ] = "",
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of 50 steps.")] = 200,
    minutes: Minutes = None,
    learning_rate: LearningRate = 1e-3,
    spacing: Annotated[str, typer.Option(help="mm, for example 1.5,1.5,1.5; empty: each dataset's own.")] = "",
    window: Annotated[str, typer.Option(help="HU window for CT, for example -175,250.")] = "",
    patch: Annotated[str, typer.Option(help="Patch size in voxels.")] = "64,64,64",
    seed: Seed = 0,
    half: Annotated[bool, typer.Option("--half", help="Store the weights in half precision.")] = False,
    licence: Annotated[str, typer.Option(help="Licence of the new weights.")] = "",
    device: Device = "auto",
    workers: Workers = 1,
    cluster: Cluster = "",
    workspace: Workspace = Path(),
) -> None:
    """Make a foundation model from datasets that are labelled only in part."""
    from fseft.cli.console import note
    from fseft.cli.console import out as console
    from fseft.cli.training import training_progress
    from fseft.cli.values import names, numbers
    from fseft.steps.pretrain import RECIPE, PretrainRequest, pretrain
    from fseft.store import Store

    request = PretrainRequest(
        folders=tuple(datasets),
        name=out,
        architecture=architecture,
        labels=names(labels),
        spacing_mm=numbers("--spacing", spacing, 3, float),  # type: ignore[arg-type]
        window=numbers("--window", window, 2, float),  # type: ignore[arg-type]
        patch_size=numbers("--patch", patch, 3, int),  # type: ignore[arg-type]
        recipe=RECIPE.model_copy(update={"epochs": epochs, "learning_rate": learning_rate}),
        minutes=minutes,
        seed=seed,
        licence=licence,
        device=device,
        workers=cluster or workers,
        half=half,
    )
    with training_progress("pre-training") as on_epoch:
        card = pretrain(request, Store(workspace), on_epoch, note)
    console.print(f"model [bold]{card.name}[/]: {len(card.classes)} structures, {card.provenance['steps']} steps")
    console.print(f"use it: fseft adapt DATASET --model {card.name} --method lora --k 5")
