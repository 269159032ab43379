"""`fseft adapt`: adapts a model to a dataset with k labelled cases."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fseft.cli import completion
from fseft.cli.adapt_output import (
    describe_start,
    describe_unlabelled,
    initial_rows,
    method_reason,
    show_adapter,
    show_candidates,
    shown_decisions,
    training_length,
)
from fseft.cli.console import (
    ConsoleCallbacks,
    is_quiet,
    is_verbose,
    note,
    show_json,
    show_lines,
    show_table,
)
from fseft.cli.formatting import named_parts
from fseft.cli.options import (
    DATA,
    MODEL,
    OUTPUT,
    PLAN,
    SCORING,
    TRAINING,
    AnnotatedSlices,
    Channels,
    Cluster,
    Crops,
    DatasetFolder,
    Device,
    IgnoreLabel,
    Json,
    Labels,
    Memory,
    Minutes,
    MissingLabel,
    Patch,
    Reader,
    Seed,
    Spacing,
    Strict,
    Unlabelled,
    Workers,
    Workspace,
    accept_former_options,
    output_folder,
)
from fseft.schemas import PartMode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fseft.adaptation.request import AdaptConfig
    from fseft.learn.training.progress import Epoch

CONTEXT_SETTINGS = accept_former_options({"half": "fp16"})


def adapt(
    dataset: DatasetFolder,
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Foundation model (`fseft models` lists them), none for random weights, or auto "
            "for the installed one that suits the dataset.",
            autocompletion=completion.models,
            rich_help_panel=MODEL,
        ),
    ] = "auto",
    method: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Adaptation method (`fseft methods` lists them), or auto to choose it on the "
            "training cases.",
            autocompletion=completion.methods,
            rich_help_panel=MODEL,
        ),
    ] = "auto",
    k: Annotated[
        int | None,
        typer.Option(
            "--k",
            "-k",
            help="Number of training cases, drawn from the labelled cases. Default: all.",
            rich_help_panel=DATA,
        ),
    ] = None,
    from_adapter: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="ADAPTER",
            help="Adapter to start from, file or folder of its run, with more cases or structures: "
            "keeps its model, method, spacing and intensities. Default: start from the model.",
            autocompletion=completion.adapters,
            rich_help_panel=MODEL,
        ),
    ] = None,
    unlabelled: Unlabelled = None,
    seed: Seed = 0,
    seeds: Annotated[
        int,
        typer.Option(
            min=1,
            help="Number of trainings, which share the time budget if there is one; their average "
            "is stored, or the best of them.",
            rich_help_panel=TRAINING,
        ),
    ] = 1,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Setting of the method or of the training, or preset=NAME (`fseft show method "
            "NAME` lists them); repeatable.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    labels: Labels = None,
    cases: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME,...",
            help="Cases to draw the training cases from, or a text file with one name per line. "
            "Default: all labelled cases.",
            rich_help_panel=DATA,
        ),
    ] = None,
    mapping: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="STRUCTURE=CLASS",
            help="Class of the model that a structure is initialised from, where their names "
            "differ; repeatable.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    decoder: Annotated[
        PartMode | None,
        typer.Option(
            metavar="MODE",
            help="Decoder: frozen, fine-tuned, new (random weights) or low-rank (LoRA). Default: "
            "fine-tuned; frozen for black-box methods, which train on the outputs of a frozen "
            "network only.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    bottleneck: Annotated[
        PartMode | None,
        typer.Option(
            metavar="MODE",
            help="Deepest level, between encoder and decoder: modes as for the decoder. Default: "
            "frozen.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    plan: Annotated[
        str,
        typer.Option(
            help="Name of an alternative plan, from `fseft plan --name`.", rich_help_panel=PLAN
        ),
    ] = "",
    spacing: Spacing = "",
    patch: Patch = "",
    crops: Crops = None,
    minutes: Minutes = None,
    cross_validate: Annotated[
        bool,
        typer.Option(
            "--cross-validate",
            help="Score by cross-validation within the k cases: one more training per fold.",
            rich_help_panel=SCORING,
        ),
    ] = False,
    folds: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Folds of --cross-validate. Default: one per training case, or 5 of more than "
            "10 cases.",
            rich_help_panel=SCORING,
        ),
    ] = None,
    half: Annotated[
        bool,
        typer.Option(
            "--fp16",
            help="Store the adapter in half precision (16 bit).",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    output: Annotated[
        Path | None,
        output_folder(
            "Run folder. Default: runs/DATASET/MODEL/METHOD-kK-sSEED, and another with "
            "--unlabelled, or with --from for each adapter."
        ),
    ] = None,
    memory: Memory = "",
    device: Device = "auto",
    workers: Workers = 1,
    cluster: Cluster = "",
    strict: Strict = False,
    reader: Reader = "",
    ignore_label: IgnoreLabel = None,
    annotated_slices: AnnotatedSlices = "all",
    missing_label: MissingLabel = "absent",
    channels: Channels = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Discard an existing run and start over. Default: resume it.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    reporter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Additional log of the training (`fseft show reporter` lists them; log.jsonl is "
            "always written); repeatable.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    workspace: Workspace = Path(),
    as_json: Json = False,
) -> None:
    """Adapt a model to your structures with k labelled cases.

    Plans and preprocesses first where necessary. Writes adapter.safetensors, run.json, log.jsonl,
    plan.json and support.json (the training cases). An interrupted run resumes from its last
    checkpoint, and a finished one continues with more --minutes. A run with other settings
    is overwritten only with --overwrite.

    For example:

    fseft adapt livers

    fseft adapt livers --model phantom-tiny --method lora --k 5

    fseft adapt livers --model phantom-tiny --method lora --k 5 --minutes 10

    fseft adapt livers --model phantom-tiny --method lora --k 5 --cross-validate

    fseft adapt livers --k 6 --from runs/livers/phantom-tiny/lora-k5-s0

    fseft adapt livers --model phantom-tiny --method lora --k 5 --unlabelled livers/imagesTs

    fseft adapt brains --model phantom-tiny --method lora --k 5 --channels first
    """
    from fseft import api
    from fseft.cli.parsing import case_names, names, pairs, parse_memory, parse_patch, parse_spacing
    from fseft.cli.training_progress import training_progress

    with training_progress("training") as on_step:
        adapter = api.adapt(
            dataset,
            model,
            method,
            k,
            from_adapter=from_adapter,
            unlabelled=unlabelled,
            seed=seed,
            seeds=seeds,
            settings=_settings(settings or (), crops),
            labels=names(labels),
            cases=case_names(cases),
            class_mapping=dict(pairs("--map", mapping or ())),
            decoder=decoder,
            bottleneck=bottleneck,
            plan=plan,
            spacing_mm=parse_spacing(spacing),
            patch_size=parse_patch(patch),
            minutes=minutes,
            fp16=half,
            output=output,
            memory_bytes=parse_memory(memory),
            device=device,
            workers=cluster or workers,
            strict=strict,
            reader=reader,
            ignore_label=ignore_label,
            annotated_slices=annotated_slices,
            missing_label=missing_label,
            channels=channels,
            overwrite=overwrite,
            reporters=reporter or (),
            cross_validate=cross_validate,
            folds=folds,
            workspace=workspace,
            callbacks=_AdaptCallbacks(on_step, show_config=not as_json),
        )
    if as_json:
        run = adapter.run.model_dump(mode="json") if adapter.run else {}
        show_json({"adapter": str(adapter.path), **run})
    else:
        show_adapter(adapter)
    if adapter.run and adapter.run.diverged:
        raise typer.Exit(DIVERGED)


DIVERGED = 3
"""Exit status after a training whose adapter is of no use."""


def _settings(texts: Iterable[str], crops: int | None) -> dict[str, Any]:
    """Parses `--set`; `--crops` is another name of a setting."""
    from fseft.cli.parsing import parse_settings

    values = parse_settings("--set", texts)
    return values if crops is None else {**values, "crops_per_step": crops}


class _AdaptCallbacks(ConsoleCallbacks):
    """Shows the configuration before training, and the progress of training."""

    def __init__(self, on_step: Callable[[Epoch], None], *, show_config: bool) -> None:
        self._on_step = on_step
        self._show_config = show_config
        self._method = ""

    def on_start(self, config: AdaptConfig, first_epoch: int) -> None:
        """Prints the training cases, the structures and the rows of the head."""
        self._method = config.request.method.name
        if is_verbose():
            _show_details(config)
        if not self._show_config or is_quiet():
            return
        lines = {
            "starting from": describe_start(config.request.origin),
            "training cases": ", ".join(config.support.cases),
            "scans without labels": describe_unlabelled(config.unlabelled),
            "annotated": named_parts(config.partly_annotated),
            "structures": _shown_structures(config),
            **shown_decisions(config),
            "training length": training_length(config),
            "method": method_reason(config.request.selection),
            "resuming": f"after epoch {first_epoch - 1}" if first_epoch > 1 else "",
        }
        show_lines([f"{key}: {value}" for key, value in lines.items() if value])
        if config.request.selection:
            show_candidates(config.request.selection)
        if config.matched or config.continued:
            show_table(("structure", "initialised from the class"), initial_rows(config))

    def on_step(self, epoch: Epoch) -> None:
        """Updates the progress bar, which names the method, or the trial or the fold."""
        self._on_step(epoch if epoch.stage else replace(epoch, stage=self._method))


def _shown_structures(config: AdaptConfig) -> str:
    """Returns the structures; where some training cases lack one, in how many it is labelled."""
    k = len(config.support.cases)
    texts = []
    for name in config.labels:
        count = config.labelled_in.get(name, k)
        texts.append(name if count == k else f"{name} ({count} of {k} cases)")
    return ", ".join(texts)


def _show_details(config: AdaptConfig) -> None:
    """Prints the weights, the threads and every decision of the plan."""
    import torch

    weights = (
        f"{config.weights.path} ({config.weights.sha256[:12]})" if config.weights else "random"
    )
    note(f"weights: {weights}; {torch.get_num_threads()} threads")
    for decision in config.plan.decisions:
        note(f"{decision.name}: {decision.value} ({decision.reason})")
