"""`fseft pretrain`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fseft.cli.options import (
    Cluster,
    Device,
    LearningRate,
    Minutes,
    Seed,
    Workspace,
    positive,
)
from fseft.errors import FseftError, pluralise

if TYPE_CHECKING:
    from fseft.learn.networks.state_dict_mapping import LoadReport

DATA, TRAINING, MACHINE = "Data", "Training", "Machine"
PATCH = "64,64,64"


def pretrain(
    datasets: Annotated[
        list[Path],
        typer.Argument(
            metavar="DATASETS...", help="Dataset folders; each may annotate other structures."
        ),
    ],
    out: Annotated[str, typer.Option(help="Name of the new model.")],
    architecture: Annotated[
        str, typer.Option(help="Network; default resunet, or that of --init.")
    ] = "",
    init: Annotated[
        str, typer.Option(help="Start from a model of the list, or a file of weights.")
    ] = "",
    trust: Annotated[
        bool, typer.Option("--trust", help="Let the file of --init run code of its own.")
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="key=value of the training (loss, optimizer, schedule, weight_decay, "
            "warmup_fraction, max_grad_norm, ema_decay, "
            "foreground_fraction, augment, precision), or of "
            "the network (`fseft show architecture`).",
        ),
    ] = None,
    licence: Annotated[str, typer.Option(help="Licence of the new weights.")] = "",
    half: Annotated[
        bool, typer.Option("--half", help="Store the weights in half precision.")
    ] = False,
    labels: Annotated[
        list[str] | None, typer.Option(help="Only these structures: a,b,...", rich_help_panel=DATA)
    ] = None,
    absent_means: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[DATASET=]RULE",
            help="A structure missing from a label file is not-there (default), or not-drawn and unknown; repeatable.",
            rich_help_panel=DATA,
        ),
    ] = None,
    masking: Annotated[
        str,
        typer.Option(
            help="annotated, or none: what is not annotated counts as background, for comparison.",
            rich_help_panel=DATA,
        ),
    ] = "annotated",
    balanced: Annotated[
        bool,
        typer.Option(
            "--balanced", help="Draw every dataset as often (default).", rich_help_panel=DATA
        ),
    ] = False,
    natural: Annotated[
        bool, typer.Option("--natural", help="Draw every case as often.", rich_help_panel=DATA)
    ] = False,
    temperature: Annotated[
        float | None,
        typer.Option(
            callback=positive,
            help="Between them: datasets are drawn by cases^(1/T); 1 is natural.",
            rich_help_panel=DATA,
        ),
    ] = None,
    validation_share: Annotated[
        float,
        typer.Option(
            min=0, max=0.9, help="Share of the cases held out for the curve.", rich_help_panel=DATA
        ),
    ] = 0.05,
    spacing: Annotated[
        str,
        typer.Option(
            help="mm, for example 1.5,1.5,1.5; empty: each dataset's own.", rich_help_panel=DATA
        ),
    ] = "",
    window: Annotated[
        str, typer.Option(help="HU window for CT, for example -175,250.", rich_help_panel=DATA)
    ] = "",
    patch: Annotated[str, typer.Option(help="Patch size in voxels.", rich_help_panel=DATA)] = PATCH,
    epochs: Annotated[
        int, typer.Option(min=1, help="Epochs, each with a checkpoint.", rich_help_panel=TRAINING)
    ] = 200,
    steps_per_epoch: Annotated[
        int, typer.Option(min=1, help="Training steps of an epoch.", rich_help_panel=TRAINING)
    ] = 50,
    crops: Annotated[
        int, typer.Option(min=1, help="Crops per step, of each rank.", rich_help_panel=TRAINING)
    ] = 2,
    minutes: Minutes = None,
    learning_rate: LearningRate = 1e-3,
    seed: Seed = 0,
    keep: Annotated[
        int, typer.Option(min=1, help="Checkpoints that stay.", rich_help_panel=TRAINING)
    ] = 1,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on from a checkpoint or refuse.", rich_help_panel=TRAINING
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start anew; replace what has this name.")
    ] = False,
    device: Device = "auto",
    workers: Annotated[
        int,
        typer.Option(
            min=1,
            help="Processes that preprocess, and that draw crops for each rank.",
            rich_help_panel=MACHINE,
        ),
    ] = 1,
    cluster: Cluster = "",
    shard: Annotated[
        bool,
        typer.Option(
            "--shard", help="Share out the network over the ranks (FSDP2).", rich_help_panel=MACHINE
        ),
    ] = False,
    compiled: Annotated[
        bool,
        typer.Option("--compile", help="torch.compile, where it works.", rich_help_panel=MACHINE),
    ] = False,
    checkpointing: Annotated[
        bool,
        typer.Option(
            "--checkpointing",
            help="Compute activations again: less memory, more time.",
            rich_help_panel=MACHINE,
        ),
    ] = False,
    workspace: Workspace = Path(),
) -> None:
    """Make a foundation model from datasets that are labelled only in part.

    A structure counts only in the cases that annotate it. Runs under torchrun too; a killed run goes on from its last
    checkpoint when it is started again.
    """
    from fseft.cli.console import note, progress, show_lines, warn
    from fseft.cli.parsing import choice, names, numbers
    from fseft.cli.training_progress import training_progress, validation_lines
    from fseft.learn.training.distributed import is_rank_zero
    from fseft.pretraining.configure import RECIPE, PretrainRequest, Watcher, split_settings
    from fseft.pretraining.run import pretrain
    from fseft.workspace import Workspace

    recipe, hparams = split_settings(settings or ())
    own = {"epochs": epochs, "learning_rate": learning_rate, "crops_per_step": crops}
    request = PretrainRequest(
        folders=tuple(datasets),
        name=out,
        architecture=architecture,
        hparams=hparams,
        init=init,
        trust=trust,
        labels=names(labels),
        absent_means=names(absent_means),
        masking=choice("--masking", masking, ("annotated", "none")),  # type: ignore[arg-type]
        temperature=_temperature(balanced, natural, temperature),
        validation_share=validation_share,
        spacing_mm=numbers("--spacing", spacing, float, example="1.5,1.5,1.5"),  # type: ignore[arg-type]
        window=numbers("--window", window, float, example="-175,250"),  # type: ignore[arg-type]
        patch_size=numbers("--patch", patch, int, example=PATCH) or PretrainRequest.patch_size,  # type: ignore[arg-type]
        recipe=RECIPE.model_copy(update={**recipe, **own}),
        steps_per_epoch=steps_per_epoch,
        minutes=minutes,
        seed=seed,
        licence=licence,
        device=device,
        workers=workers,
        cluster=cluster,
        half=half,
        keep=keep,
        resume=resume,
        overwrite=overwrite,
        shard=shard,
        compiled=compiled,
        recompute=checkpointing,
    )
    if not is_rank_zero():
        pretrain(request, Workspace(workspace))
        return
    with training_progress("pre-training", minutes, "about") as on_step:
        watcher = Watcher(validation_lines(), warn, _tell, note, progress, on_step)
        card = pretrain(request, Workspace(workspace), watcher)
    made, where = card.provenance, "" if workspace == Path() else f" --workspace {workspace}"
    early = f" of {epochs}: the time budget ended it" if made["epochs"] < epochs else ""
    steps = f"{pluralise(made['steps'], 'step')} in {pluralise(made['epochs'], 'epoch')}{early}"
    show_lines(
        [
            f"model {card.name}: {pluralise(len(card.classes), 'structure')}, {steps}",
            f"use it: fseft adapt DATASET --model {card.name}{where} --method lora --k 5",
        ]
    )


def _temperature(balanced: bool, natural: bool, temperature: float | None) -> float:
    """How datasets are drawn, said in one of three ways.

    Raises:
        FseftError: In more than one.
    """
    if balanced + natural + (temperature is not None) > 1:
        raise FseftError(
            "--balanced, --natural and --temperature exclude each other", hint="Give one of them."
        )
    return 1.0 if natural else temperature or math.inf


def _tell(report: LoadReport) -> None:
    """What became of the tensors of `--init`."""
    from fseft.cli.console import show_lines

    show_lines(report.describe())
