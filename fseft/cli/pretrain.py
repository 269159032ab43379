"""`fseft pretrain`: pre-trains a foundation model on partially labelled datasets."""

from __future__ import annotations

import logging
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fseft.cli import completion, console
from fseft.cli.options import (
    COMPUTE,
    DATA,
    MODEL,
    OUTPUT,
    TRAINING,
    AnnotatedSlices,
    Cluster,
    Device,
    IgnoreLabel,
    Json,
    LearningRate,
    Minutes,
    Reader,
    Seed,
    Strict,
    Workspace,
    accept_former_options,
)
from fseft.errors import FseftError, pluralise

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fseft.learn.training.progress import Epoch
    from fseft.schemas import ModelCard

PATCH = "64,64,64"

CONTEXT_SETTINGS = accept_former_options(
    {
        "out": "name",
        "trust": "allow-pickle",
        "half": "fp16",
        "absent-means": "missing-label",
        "temperature": "sampling",
        "validation-share": "validation-fraction",
        "crops": "crops-per-step",
    }
)

_OWN_OPTIONS = {
    "epochs": "--epochs",
    "learning_rate": "--learning-rate",
    "crops_per_step": "--crops-per-step",
}
"""Settings of the training with a separate option."""


def pretrain(
    datasets: Annotated[
        list[Path],
        typer.Argument(
            metavar="DATASET...", help="Dataset folders; each may annotate other structures."
        ),
    ],
    *,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME,...", help="Structures to learn. Default: all.", rich_help_panel=DATA
        ),
    ] = None,
    missing_label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[DATASET=]RULE",
            help="Meaning of a structure that a label file does not contain: absent (default) or "
            "unannotated; repeatable.",
            rich_help_panel=DATA,
        ),
    ] = None,
    masking: Annotated[
        Literal["annotated", "none"],
        typer.Option(
            help="annotated: a structure contributes to the loss only in cases that annotate it; "
            "none: unannotated structures count as background, for comparison.",
            rich_help_panel=DATA,
        ),
    ] = "annotated",
    sampling: Annotated[
        str,
        typer.Option(
            metavar="RULE",
            help="balanced (draw every dataset equally often), natural (every case equally often) "
            "or a temperature T (datasets in proportion to cases^(1/T)).",
            rich_help_panel=DATA,
        ),
    ] = "balanced",
    balanced: Annotated[bool, typer.Option("--balanced", hidden=True)] = False,
    natural: Annotated[bool, typer.Option("--natural", hidden=True)] = False,
    validation_fraction: Annotated[
        float,
        typer.Option(
            min=0, max=0.9, help="Fraction of the cases for validation.", rich_help_panel=DATA
        ),
    ] = 0.05,
    spacing: Annotated[
        str,
        typer.Option(
            metavar="MM,MM,MM",
            help="Voxel spacing, such as 1.5,1.5,1.5. Default: that of each dataset.",
            rich_help_panel=DATA,
        ),
    ] = "",
    window: Annotated[
        str,
        typer.Option(
            metavar="LOW,HIGH",
            help="Intensity window of CT in HU, such as -175,250. Default: from the data.",
            rich_help_panel=DATA,
        ),
    ] = "",
    patch: Annotated[
        str,
        typer.Option(metavar="N,N,N", help="Patch size in voxels.", rich_help_panel=DATA),
    ] = PATCH,
    architecture: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Network (`fseft show architecture` lists them). Default: that of --init, or "
            "resunet.",
            rich_help_panel=MODEL,
        ),
    ] = "",
    init: Annotated[
        str,
        typer.Option(
            metavar="MODEL|FILE",
            help="Initial weights: a model, or a file. Default: random.",
            autocompletion=completion.models,
            rich_help_panel=MODEL,
        ),
    ] = "",
    allow_pickle: Annotated[
        bool,
        typer.Option(
            "--allow-pickle",
            help="Allow the file of --init to execute code.",
            rich_help_panel=MODEL,
        ),
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Setting of the training (loss, optimizer, schedule, weight_decay, "
            "warmup_fraction, max_grad_norm, ema_decay, foreground_fraction, augment, precision) "
            "or hyper-parameter of the network (`fseft show architecture`); repeatable.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    epochs: Annotated[
        int, typer.Option(min=1, help="Epochs, each with a checkpoint.", rich_help_panel=TRAINING)
    ] = 200,
    steps_per_epoch: Annotated[
        int, typer.Option(min=1, help="Training steps per epoch.", rich_help_panel=TRAINING)
    ] = 50,
    crops_per_step: Annotated[
        int, typer.Option(min=1, help="Crops per step and process.", rich_help_panel=TRAINING)
    ] = 2,
    minutes: Minutes = None,
    learning_rate: LearningRate = 1e-3,
    seed: Seed = 0,
    keep: Annotated[
        int, typer.Option(min=1, help="Number of checkpoints to keep.", rich_help_panel=TRAINING)
    ] = 1,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Resume from a checkpoint; fail if there is none.",
            rich_help_panel=TRAINING,
        ),
    ] = False,
    strict: Strict = False,
    reader: Reader = "",
    ignore_label: IgnoreLabel = None,
    annotated_slices: AnnotatedSlices = "all",
    device: Device = "auto",
    workers: Annotated[
        int,
        typer.Option(
            min=1,
            help="Number of processes that preprocess, and that draw crops.",
            rich_help_panel=COMPUTE,
        ),
    ] = 1,
    cluster: Cluster = "",
    shard: Annotated[
        bool,
        typer.Option(
            "--shard",
            help="Shard the network over the processes of torchrun (FSDP2).",
            rich_help_panel=COMPUTE,
        ),
    ] = False,
    compiled: Annotated[
        bool,
        typer.Option("--compile", help="Use torch.compile.", rich_help_panel=COMPUTE),
    ] = False,
    checkpointing: Annotated[
        bool,
        typer.Option(
            "--checkpointing",
            help="Recompute activations in the backward pass: less memory, more time.",
            rich_help_panel=COMPUTE,
        ),
    ] = False,
    name: Annotated[
        str,
        typer.Option(metavar="NAME", help="Name of the new model.", rich_help_panel=OUTPUT),
    ],
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Discard an existing model or checkpoint of this name. Default: resume it.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    licence: Annotated[
        str,
        typer.Option(metavar="TEXT", help="Licence of the new weights.", rich_help_panel=OUTPUT),
    ] = "",
    fp16: Annotated[
        bool,
        typer.Option("--fp16", help="Store the weights in half precision.", rich_help_panel=OUTPUT),
    ] = False,
    workspace: Workspace = Path(),
    as_json: Json = False,
) -> None:
    """Pre-train a foundation model on partially labelled datasets.

    A structure contributes to the loss only in cases that annotate it. Also runs under torchrun.
    The same command resumes an interrupted run from its last checkpoint.

    For example:

    `fseft pretrain livers kidneys --name torso --window=-175,250`

    `fseft pretrain livers --name livers-2 --init torso --epochs 50`
    """
    from fseft.cli.parsing import names, numbers, parse_settings

    values = parse_settings("--set", settings or (), example="ema_decay=0.99")
    _check_settings(values)
    spacing_mm = numbers("--spacing", spacing, float, example="1.5,1.5,1.5")
    bounds = numbers("--window", window, float, example="-175,250")
    patch_size = numbers("--patch", patch, int, example=PATCH)
    values |= {
        "epochs": epochs,
        "learning_rate": learning_rate,
        "crops_per_step": crops_per_step,
    }
    options: dict[str, Any] = {
        "datasets": datasets,
        "name": name,
        "architecture": architecture,
        "init": init,
        "allow_pickle": allow_pickle,
        "labels": names(labels),
        "strict": strict,
        "reader": reader,
        "ignore_label": ignore_label,
        "annotated_slices": annotated_slices,
        "missing_label": _missing_label(missing_label or ()),
        "masking": masking,
        "temperature": _temperature(sampling, balanced=balanced, natural=natural),
        "validation_fraction": validation_fraction,
        "spacing_mm": spacing_mm,
        "window": bounds,
        "settings": values,
        "steps_per_epoch": steps_per_epoch,
        "minutes": minutes,
        "seed": seed,
        "licence": licence,
        "device": device,
        "workers": workers,
        "cluster": cluster,
        "fp16": fp16,
        "keep": keep,
        "resume": resume,
        "overwrite": overwrite,
        "shard": shard,
        "compile": compiled,
        "checkpoint_activations": checkpointing,
    }
    if patch_size is not None:
        options["patch_size"] = patch_size
    _run(options, workspace, as_json=as_json)


def _check_settings(settings: Mapping[str, Any]) -> None:
    """Refuses settings that have a separate option.

    Raises:
        FseftError: A setting has one.
    """
    for key, option in _OWN_OPTIONS.items():
        if key in settings:
            raise FseftError(f"--set {key}: this setting has an option", hint=f"Use {option}.")


def _missing_label(texts: Sequence[str]) -> dict[str, str]:
    """Parses rules of the form `RULE` or `DATASET=RULE`; the empty name stands for all others."""
    parts = [text.rpartition("=") for text in texts]
    return {dataset: rule for dataset, _, rule in parts}


def _temperature(sampling: str, *, balanced: bool, natural: bool) -> float:
    """Sampling temperature of `--sampling`, or of its former options.

    Raises:
        FseftError: The value is invalid, or an option contradicts another.
    """
    if balanced + natural + (sampling != "balanced") > 1:
        raise FseftError(
            "--sampling, --balanced and --natural exclude each other", hint="Use --sampling only."
        )
    named = {"balanced": math.inf, "natural": 1.0}
    text = "natural" if natural else sampling
    try:
        temperature = named[text] if text in named else float(text)
    except ValueError:
        temperature = math.nan
    if not temperature > 0:
        cause = f"--sampling {sampling}: must be balanced, natural or a positive number"
        raise FseftError(cause, hint="Write for example --sampling natural.")
    return temperature


def _run(options: Mapping[str, Any], workspace: Path, *, as_json: bool) -> None:
    """Trains, shows the progress, and prints the new model."""
    from fseft import api
    from fseft.cli.training_progress import training_progress

    if os.environ.get("RANK", "0") != "0":  # rank 0 of torchrun prints for all
        console.configure_logging(logging.ERROR)
        api.pretrain(**options, workspace=workspace)
        return
    with training_progress("pre-training") as on_step:
        callbacks = _PretrainCallbacks(on_step)
        card = api.pretrain(**options, workspace=workspace, callbacks=callbacks)
    if as_json:
        console.show_json(card.model_dump(mode="json"))
    else:
        console.show_lines(_result_lines(card, options["settings"]["epochs"], workspace))


def _result_lines(card: ModelCard, requested_epochs: int, workspace: Path) -> Sequence[str]:
    provenance = card.provenance
    steps, epochs = provenance["steps"], provenance["epochs"]
    trained = f"{pluralise(steps, 'step')} in {pluralise(epochs, 'epoch')}"
    if epochs < requested_epochs:
        trained += f" of {requested_epochs}: ended by the time budget"
    option = "" if workspace == Path() else f" --workspace {workspace}"
    return [
        f"model {card.name}: {pluralise(len(card.classes), 'structure')}, {trained}",
        f"use it: fseft adapt DATASET --model {card.name}{option} --method lora --k 5",
    ]


class _PretrainCallbacks(console.ConsoleCallbacks):
    """Progress over cases and steps, and the Dice of validation at intervals."""

    def __init__(self, on_step: Callable[[Epoch], None]) -> None:
        from fseft.cli.training_progress import validation_lines

        self._on_step = on_step
        self._on_validation_end = validation_lines()

    def on_step(self, epoch: Epoch) -> None:
        """Updates the bar."""
        self._on_step(epoch)

    def on_validation_end(self, epoch: Epoch, dice: Mapping[str, float]) -> None:
        """Prints the Dice at intervals."""
        self._on_validation_end(epoch, dice)
