"""The page that compares the methods of the demonstration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.demo.results import KNOWN
from fseft.phantom import LEFT_OUT
from fseft.reporting.charts import line_chart
from fseft.reporting.page import Column, Figure, Highlight, Page, Section, Table, render_page
from fseft.result_pages.case_arrays import read_arrays
from fseft.result_pages.cases import read_cases
from fseft.result_pages.pictures import ABOUT_PLANES, comparison, describe_score
from fseft.result_pages.training_log import read_log
from fseft.workspace import write_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fseft.demo.results import DemoRequest, MethodResult

_FILES = (
    "data: the phantoms. runs: the adapters. predictions: the segmentations, with their scores in "
    "metrics.json."
)


def write_page(request: DemoRequest, results: tuple[MethodResult, ...]) -> Path:
    """Writes `index.html` to the folder of the demonstration, and returns its path.

    Args:
        request: Folder and settings of the demonstration.
        results: The result of each method, in the order in which they are shown.

    Raises:
        FseftError: The file cannot be written.
    """
    page = Page(
        title="fseft demo",
        subtitle=(
            f"{request.k} labelled phantoms, {request.test_cases} unseen phantoms, scored on the "
            "grid of their images"
        ),
        summary=_highlights(results),
        sections=(
            _result_section(results),
            _structure_section(results),
            _picture_section(request, results),
            Section("Training", "Training loss over time.", figures=(_loss_chart(results),)),
            Section("Files", _FILES),
            Section("Next", "The same with scans of your own:", code=_next_commands(results)),
        ),
        footer="Phantoms show that the workflow runs; they say nothing about real patients.",
    )
    path = request.folder / "index.html"
    write_text(path, render_page(page))
    return path


def table_rows(results: tuple[MethodResult, ...]) -> list[tuple[str | float | None, ...]]:
    """Returns method, trained parameters, MB, and mean Dice of known and of new structures."""
    rows: list[tuple[str | float | None, ...]] = []
    for result in results:
        parameters = result.run.trained_parameters
        dice = (result.mean_dice(KNOWN), result.mean_dice(LEFT_OUT))
        rows.append((result.method, parameters, result.adapter_mb, *dice))
    return rows


def _highlights(results: tuple[MethodResult, ...]) -> tuple[Highlight, ...]:
    best = _best(results)
    dice = best.mean_dice(LEFT_OUT) or 0.0
    minutes = best.run.seconds / 60
    return (
        Highlight("best on new structures", best.method, f"Dice {dice:.3f}"),
        Highlight("adapter file", f"{best.adapter_mb:.2f} MB", "safetensors"),
        Highlight("training", f"{minutes:.1f} min", "on the CPU"),
    )


def _result_section(results: tuple[MethodResult, ...]) -> Section:
    columns = (
        Column("method"),
        Column("trained parameters", digits=0),
        Column("adapter, MB", digits=2),
        Column("Dice, known structures", best="highest"),
        Column("Dice, new structures", best="highest"),
        Column("HD95 in mm, all structures", digits=1, best="lowest"),
    )
    text = (
        f"The embedded model was pre-trained on phantoms without {', '.join(LEFT_OUT)}: these "
        f"are new to it. It was trained on {', '.join(KNOWN)}, from another scanner."
    )
    distances = [result.scores.mean.get("hd95_mm") for result in results]
    rows = [(*row, hd95) for row, hd95 in zip(table_rows(results), distances, strict=True)]
    return Section("Results", text, tables=(Table("Means", columns, rows),))


def _structure_section(results: tuple[MethodResult, ...]) -> Section:
    structures = tuple(results[0].scores.classes)
    columns = [Column("method")]
    columns += [Column(structure, best="highest") for structure in structures]
    means = [(result.method, *map(result.dice, structures)) for result in results]
    spread = [(result.method, *map(result.dice_sd, structures)) for result in results]
    tables = (
        Table("Mean Dice over the unseen phantoms", columns, means),
        Table(
            "Standard deviation of the Dice", [Column(column.title) for column in columns], spread
        ),
    )
    return Section("Structures", tables=tables)


def _loss_chart(results: tuple[MethodResult, ...]) -> Figure:
    trained = [result for result in results if result.run.epochs]
    curves = {result.method: _loss_curve(result) for result in trained}
    return Figure("loss", line_chart(curves, x_label="seconds", y_label="loss"))


def _loss_curve(result: MethodResult) -> list[tuple[float, float]]:
    epochs = read_log(result.adapter.path.parent)
    return [(epoch.seconds, epoch.loss) for epoch in epochs]


def _picture_section(request: DemoRequest, results: tuple[MethodResult, ...]) -> Section:
    """Shows the phantom that the best method segments worst, by each method."""
    best = _best(results)
    worst = read_cases(request.predictions(best.method)).ranked()[0].name
    text = f"{worst}, the unseen phantom that {best.method} segments worst. {ABOUT_PLANES}"
    return Section("Segmentations", text, figures=tuple(_pictures(request, results, worst)))


def _pictures(
    request: DemoRequest, results: tuple[MethodResult, ...], name: str
) -> Iterator[Figure]:
    """Yields the segmentation of a phantom by each method, in three planes."""
    for result in results:
        predicted = read_cases(request.predictions(result.method))
        case = next(case for case in predicted.cases if case.name == name)
        yield comparison(read_arrays(case), result.method, describe_score(case, predicted))


def _next_commands(results: tuple[MethodResult, ...]) -> str:
    return "\n".join(
        [
            "fseft start FOLDER",
            f"fseft adapt FOLDER -o adapter --method {_best(results).method}",
            "fseft predict SCANS -o segmented --adapter adapter",
            "fseft report segmented --open",
        ]
    )


def _best(results: tuple[MethodResult, ...]) -> MethodResult:
    return max(results, key=lambda result: result.mean_dice(LEFT_OUT) or 0.0)
