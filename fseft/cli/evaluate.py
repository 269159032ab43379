"""`fseft evaluate`: score predictions against reference labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fseft.cli.options import (
    COMPUTE,
    DATA,
    AnnotatedSlices,
    Cluster,
    IgnoreLabel,
    Json,
    Metrics,
    Tolerance,
    accept_former_options,
    output_folder,
)
from fseft.errors import pluralise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fseft.evaluation.run import Evaluation

CONTEXT_SETTINGS = accept_former_options({"with-support": "include-training"})

MAX_NAMED_CASES = 5


def evaluate(
    predictions: Annotated[
        Path,
        typer.Argument(metavar="PREDICTIONS", help="Folder of predicted label files, or one file."),
    ],
    reference: Annotated[
        Path, typer.Argument(metavar="LABELS", help="Folder of reference label files, or one file.")
    ],
    metrics: Metrics = None,
    tolerance: Tolerance = "2mm",
    structures: Annotated[
        list[str] | None,
        typer.Option(
            "--labels",
            metavar="NAME,...",
            help="Structures to score. Default: all.",
            rich_help_panel=DATA,
        ),
    ] = None,
    label_values: Annotated[
        str,
        typer.Option(
            "--values",
            metavar="NAME=N,...",
            help="Voxel values in LABELS, as in liver=1,spleen=3. Default: from dataset.json.",
            rich_help_panel=DATA,
        ),
    ] = "",
    ignore_label: IgnoreLabel = None,
    annotated_slices: AnnotatedSlices = "all",
    missing_label: Annotated[
        Literal["absent", "unannotated"] | None,
        typer.Option(
            help="Meaning of a structure that the label map of a case does not contain; with "
            "unannotated, it is not scored in this case. Default: as in the training.",
            rich_help_panel=DATA,
        ),
    ] = None,
    include_training: Annotated[
        bool,
        typer.Option(
            "--include-training",
            help="Score the training cases of the adapter too.",
            rich_help_panel=DATA,
        ),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of processes. Default: 1 for a few cases, else one per core.",
            rich_help_panel=COMPUTE,
        ),
    ] = None,
    cluster: Cluster = "",
    output: Annotated[
        Path | None,
        output_folder("Folder for the results. Default: PREDICTIONS."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Score predictions on the grid of the original images.

    Writes metrics.json and metrics.csv. A structure that is only in the label or only in the
    prediction gets the worst score (Dice 0, the diagonal of the image as HD95). A structure that is
    in neither is excluded from the means, and counted.

    For example:

    fseft evaluate segmented livers/labelsTs

    fseft evaluate segmented livers/labelsTs --metrics dice,assd --json

    fseft evaluate segmented livers/labelsTs --missing-label unannotated
    """
    from fseft import api
    from fseft.cli import console
    from fseft.cli.parsing import named_values, names, parse_tolerance

    folder = output or (predictions.parent if predictions.is_file() else predictions)
    result = api.evaluate(
        predictions,
        reference,
        metrics=names(metrics),
        structures=names(structures),
        label_values=named_values("--values", label_values),
        ignore_label=ignore_label,
        annotated_slices=annotated_slices,
        missing_label=missing_label,
        tolerance_mm=parse_tolerance(tolerance),
        include_training=include_training,
        output=folder,
        workers=cluster or workers,
        callbacks=console.ConsoleCallbacks(),
    )
    _report_exclusions(result)
    if as_json:
        console.show_json(result.model_dump(mode="json"))
        return
    _show(result)
    console.show_lines([f"{folder / 'metrics.json'} and metrics.csv"])


def _report_exclusions(result: Evaluation) -> None:
    """Print which cases and structures were not scored."""
    from fseft.cli import console

    if result.without_prediction:
        count = pluralise(len(result.without_prediction), "case")
        console.note(f"{count} without a prediction: not scored")
    _warn_of_cases(result.without_label, "predicted but without a label")
    reason = "not scored, as the adapter was trained on it (--include-training scores it)"
    _warn_of_cases(result.support, reason)
    if result.left_out:
        structures = ", ".join(result.left_out)
        console.note(f"not scored, as the predictions cannot contain them: {structures}")


def _warn_of_cases(cases: Sequence[str], reason: str) -> None:
    from fseft.cli import console

    if not cases:
        return
    names = ", ".join(cases[:MAX_NAMED_CASES])
    more = ", ..." if len(cases) > MAX_NAMED_CASES else ""
    console.warn(f"{pluralise(len(cases), 'case')} {reason}: {names}{more}")


def _show(result: Evaluation) -> None:
    """Print the table of classes, with the means below."""
    from fseft.cli import console
    from fseft.metrics.fields import explain

    rows = []
    for name, summary in result.classes.items():
        metrics = [metric.text(summary.mean) for metric in result.metrics]
        counts = (summary.cases, summary.missed, summary.false_positive, summary.both_empty)
        rows.append((name, *metrics, *map(str, counts)))
    means = [metric.text(result.mean) for metric in result.metrics]
    rows.append(("mean", *means, str(len(result.cases)), "", "", ""))
    titles = [metric.title for metric in result.metrics]
    columns = ("structure", *titles, "cases", "missed", "false", "none")
    console.show_table(columns, rows, right=columns[1:])
    counts_note = (
        "missed, false, none: cases with the structure in the label only, in the prediction only, "
        "in neither (excluded from the means)."
    )
    notes = (explain(result.metrics, result.tolerance_mm), counts_note)
    console.show_paragraph(" ".join(filter(None, notes)))
