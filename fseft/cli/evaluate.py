"""`fseft evaluate`: Dice, NSD and HD95 of predictions against labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fseft.cli.options import Cluster, Json
from fseft.errors import pluralise

if TYPE_CHECKING:
    from fseft.evaluation.matching import Pairing
    from fseft.evaluation.run import Evaluation


def evaluate(
    predictions: Annotated[
        Path,
        typer.Argument(metavar="PREDICTIONS", help="Folder of predicted label files, or one file."),
    ],
    reference: Annotated[
        Path, typer.Argument(metavar="LABELS", help="Folder of reference label files, or one file.")
    ],
    tolerance: Annotated[str, typer.Option(help="Surface deviation that NSD accepts.")] = "2mm",
    only: Annotated[
        list[str] | None,
        typer.Option("--labels", help="Structures to score, as a,b; by default all."),
    ] = None,
    values: Annotated[
        str,
        typer.Option(
            help="What the values in LABELS mean where no dataset.json tells: liver=1,spleen=3."
        ),
    ] = "",
    with_support: Annotated[
        bool,
        typer.Option(
            "--with-support", help="Also score the scans that the adapter has learned from."
        ),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes; by default 1 for a few cases, else one per core."),
    ] = None,
    cluster: Cluster = "",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for the metrics; by default PREDICTIONS."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Score predictions on the native grid: Dice, NSD, HD95 and volume difference.

    Writes metrics.json and metrics.csv. A structure in neither labelling is left out of the means and counted; one
    that is missed, or predicted where there is none, has Dice 0, NSD 0 and the image diagonal as HD95.
    """
    from fseft.cli import console
    from fseft.cli.parsing import named_values, names
    from fseft.evaluation import run as step
    from fseft.evaluation.matching import pair_files

    tolerance_mm = step.parse_tolerance(tolerance)
    pairing = pair_files(predictions, reference, values=named_values("--values", values))
    _warn_pairing(pairing)
    with console.progress(len(pairing.cases), "evaluate") as done:
        result = step.evaluate(
            pairing,
            tolerance_mm=tolerance_mm,
            only=names(only),
            with_support=with_support,
            workers=cluster or workers,
            done=done,
        )
    folder = output or (predictions.parent if predictions.is_file() else predictions)
    document, _ = step.write_evaluation(result, folder)
    _warn(result)
    if as_json:
        console.show_json(result.model_dump(mode="json"))
        return
    _show(result)
    console.out.print(f"{document} and metrics.csv", highlight=False, soft_wrap=True, markup=False)


def _warn_pairing(pairing: Pairing) -> None:
    """Say what was taken for granted before anything is scored."""
    from fseft.cli import console

    named = {
        name: value for name, value in (pairing.predicted or {}).items() if name != f"class_{value}"
    }
    if pairing.reference is None and named:
        meaning = ", ".join(f"{value} = {name}" for name, value in named.items())
        console.warn(
            f"no dataset.json tells what the values in the labels mean: taken as in the predictions ({meaning}). "
            "If that is wrong, give --values"
        )
    if pairing.mixed:
        console.warn(
            f"not all predictions are of the same adapters: {', '.join(pairing.adapters.values())}"
        )


def _warn(result: Evaluation) -> None:
    """Say what the scores do not cover."""
    from fseft.cli import console

    for cases, what in (
        (result.without_prediction, "without a prediction"),
        (result.without_label, "predicted but without a label"),
        (
            result.support,
            "not scored, as the adapter has learned from it (--with-support scores it)",
        ),
    ):
        if cases:
            shown = ", ".join(cases[:5]) + (", ..." if len(cases) > 5 else "")
            console.warn(f"{pluralise(len(cases), 'case')} {what}: {shown}")
    if result.left_out:
        console.note(
            f"not scored, as the predictions cannot hold them: {', '.join(result.left_out)}"
        )


def _show(result: Evaluation) -> None:
    from fseft.cli import console

    rows = []
    for name, summary in result.classes.items():
        metrics = (summary.dice, summary.nsd, summary.hd95_mm, summary.volume_difference_ml)
        counts = (summary.cases, summary.missed, summary.false_positive, summary.both_empty)
        rows.append((name, *map(_number, metrics, (3, 3, 1, 1)), *map(str, counts)))
    means = (result.mean_dice, result.mean_nsd, result.mean_hd95_mm)
    rows.append(("mean", *map(_number, means, (3, 3, 1)), "", str(len(result.cases)), "", "", ""))
    columns = ("structure", "Dice", "NSD", "HD95", "ΔV", "cases", "missed", "false", "none")
    console.show_table(columns, rows, right=columns[1:])
    console.out.print(
        f"NSD within {result.tolerance_mm:g} mm, HD95 in mm, ΔV in ml: prediction less label. missed, false, none: "
        "cases with the structure in the label alone, in the prediction alone, in none (left out of the means).",
        highlight=False,
    )


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
