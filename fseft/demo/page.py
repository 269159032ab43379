"""The page that compares the methods of the demonstration."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from fseft.demo.results import KNOWN
from fseft.phantom import LEFT_OUT
from fseft.reporting.charts import line_chart
from fseft.reporting.figures import (
    best_slice,
    distinct_colours,
    draw_slice,
    encode_png,
    side_by_side,
)
from fseft.reporting.page import Column, Figure, Highlight, Page, Section, Table, render_page
from fseft.volume.geometry import reorient
from fseft.volume.image import read_labels, read_volume
from fseft.workspace import write_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from fseft.demo.results import DemoRequest, MethodResult

WINDOW_HU = (-160.0, 240.0)
_PLANES = ((2, "axial"), (1, "coronal"))


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
            Section(
                "Segmentations",
                "The first unseen phantom.",
                figures=_pictures(request, results),
            ),
            Section("Training", "Training loss over time.", figures=(_loss_chart(results),)),
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
    best = max(results, key=lambda result: result.mean_dice(LEFT_OUT) or 0.0)
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
    )
    text = (
        f"The embedded model was pre-trained on phantoms without {', '.join(LEFT_OUT)}: these "
        f"are new to it. It was trained on {', '.join(KNOWN)}, from another scanner."
    )
    return Section("Results", text, tables=(Table("Mean Dice", columns, table_rows(results)),))


def _structure_section(results: tuple[MethodResult, ...]) -> Section:
    structures = tuple(results[0].scores.classes)
    columns = [Column("method")]
    columns += [Column(structure, best="highest") for structure in structures]
    rows = [(result.method, *map(result.dice, structures)) for result in results]
    table = Table("Dice", columns, rows)
    return Section("Structures", "Mean Dice over the unseen phantoms.", tables=(table,))


def _loss_chart(results: tuple[MethodResult, ...]) -> Figure:
    trained = [result for result in results if result.run.epochs]
    curves = {result.method: _loss_curve(result) for result in trained}
    return Figure("loss", line_chart(curves, x_label="seconds", y_label="loss"))


def _loss_curve(result: MethodResult) -> list[tuple[float, float]]:
    log = result.adapter.path.with_name("log.jsonl")
    points = []
    for line in log.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        points.append((entry["seconds"], entry["loss"]))
    return points


def _pictures(request: DemoRequest, results: tuple[MethodResult, ...]) -> tuple[Figure, ...]:
    """Returns slices of the first unseen phantom: the reference, then each method."""
    image_file = min((request.data / "imagesTs").iterdir())
    name = f"{image_file.name.removesuffix('_0000.nii.gz')}.nii.gz"
    volume = read_volume(image_file)
    image, geometry = reorient(volume.array, volume.geometry, "RAS")
    folders = [request.data / "labelsTs"]
    folders += [request.predictions(result.method) for result in results]
    label_maps = [_read_ras(folder / name) for folder in folders]
    legend = _legend(results[0].run.labels)
    methods = ", ".join(result.method for result in results)
    figures = []
    for axis, plane in _PLANES:
        options: dict[str, Any] = {
            "axis": axis,
            "index": best_slice(label_maps[0], axis),
            "window": WINDOW_HU,
        }
        pictures = [
            draw_slice(image[0], labels, geometry.spacing_mm, **options) for labels in label_maps
        ]
        png = encode_png(side_by_side(pictures))
        figures.append(Figure(f"{plane}: reference, {methods}", png, legend))
    return tuple(figures)


def _read_ras(path: Path) -> NDArray[np.integer[Any]]:
    """Returns a label map of shape (i, j, k) in orientation RAS."""
    labels = read_labels(path)
    array: NDArray[np.integer[Any]] = reorient(labels.array, labels.geometry, "RAS")[0][0]
    return array


def _legend(labels: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Returns the colour of each structure."""
    highest = max(labels.values())
    colours = distinct_colours(highest).tolist()
    return {name: tuple(colours[value - 1]) for name, value in labels.items()}
