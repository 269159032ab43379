"""`fseft demo`: the whole chain on made-up scans, with a table and a page to look at."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fseft import api
from fseft.demo.phantom import LEFT_OUT, PhantomSet, write_phantoms
from fseft.evaluation.matching import match_files
from fseft.evaluation.run import evaluate
from fseft.logs import captured_records
from fseft.planning.dataset_reading import read_dataset
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
from fseft.workspace import Workspace, write_text

if TYPE_CHECKING:
    from pathlib import Path

    from fseft.experiment.callbacks import Callbacks
    from fseft.inference.adapter import Adapter
    from fseft.metrics.scores import Scores
    from fseft.schemas import Dataset, Run

logger = logging.getLogger(__name__)

MODEL = "phantom-tiny"
KNOWN = ("liver", "kidney_left", "vertebrae")
METHODS = ("zero-shot", "linear-probe", "lora", "scratch")
WINDOW = (-160.0, 240.0)
SETTINGS = {"crops_per_step": 2, "early_stopping": False}
"""Two crops per step keep a step under a second on two cores."""


@dataclass(frozen=True)
class DemoRequest:
    """What `fseft demo` was asked for. `minutes` is the training time of each method."""

    folder: Path
    k: int = 5
    test_cases: int = 4
    shift: float = 0.5
    minutes: float = 1.2
    seed: int = 0


@dataclass(frozen=True)
class Result:
    """What one method reached."""

    method: str
    adapter: Adapter
    scores: Scores

    @property
    def run(self) -> Run:
        """The document of the run."""
        run = self.adapter.run
        assert run is not None  # noqa: S101 - the run has just ended
        return run

    def mean_dice(self, structures: tuple[str, ...]) -> float | None:
        """Mean over structures; None where none was scored."""
        values = [
            self.scores.classes[name].mean["dice"]
            for name in structures
            if name in self.scores.classes
        ]
        found = [value for value in values if value is not None]
        return float(np.mean(found)) if found else None


@dataclass(frozen=True)
class Demo:
    """All results, and the page that shows them."""

    results: tuple[Result, ...]
    page: Path


def run_demo(request: DemoRequest, callbacks: Callbacks | None = None) -> Demo:
    """Make phantoms of another scanner, then plan, preprocess, adapt, predict and evaluate with four methods.

    Everything lies below `request.folder`; a second run goes on where the first was stopped.
    """
    workspace = Workspace(request.folder)
    data = request.folder / "data" / f"phantom-torso-{request.seed}"
    if not (data / "dataset.json").is_file():
        logger.info(
            "making %d labelled and %d unseen phantoms, as from another scanner",
            request.k,
            request.test_cases,
        )
        phantoms = PhantomSet(
            data.name, "ct", (*KNOWN, *LEFT_OUT), cases=request.k, seed=1000 + request.seed
        )
        write_phantoms(
            data,
            phantoms,
            test_cases=request.test_cases,
            shift=request.shift,
            done=lambda _: None,
            spacing_mm=5.0,
        )
    logger.info("plan and preprocess")
    dataset = read_dataset(data)
    with captured_records():  # the plan's doubts about phantoms are of no interest
        api.preprocess(dataset, MODEL, workspace=workspace)
    results = tuple(
        _one_method(request, dataset, workspace, method, callbacks) for method in METHODS
    )
    page = request.folder / "index.html"
    write_text(page, render_page(_page(request, data, results)))
    return Demo(results, page)


def _one_method(
    request: DemoRequest,
    dataset: Dataset,
    workspace: Workspace,
    method: str,
    callbacks: Callbacks | None,
) -> Result:
    logger.info("%s: adapt, predict, evaluate", method)
    with captured_records():
        adapter = api.adapt(
            dataset,
            MODEL,
            method,
            request.k,
            seed=request.seed,
            settings=SETTINGS,
            minutes=request.minutes,
            device="cpu",
            overwrite=True,
            workspace=workspace,
            callbacks=callbacks,
        )
        output = request.folder / "predictions" / method
        api.predict(dataset.folder / "imagesTs", adapter, output, device="cpu")
    scores = evaluate(match_files(output, dataset.folder / "labelsTs"), workers=1)
    return Result(method, adapter, scores)


def table_rows(results: tuple[Result, ...]) -> list[tuple[str | float | None, ...]]:
    """Method, parameters, MB, and mean Dice over the known and over the new structures."""
    return [
        (
            result.method,
            result.run.trained_parameters,
            result.adapter.path.stat().st_size / 1e6,
            result.mean_dice(KNOWN),
            result.mean_dice(LEFT_OUT),
        )
        for result in results
    ]


def _page(request: DemoRequest, data: Path, results: tuple[Result, ...]) -> Page:
    best = max(results, key=lambda result: result.mean_dice(LEFT_OUT) or 0.0)
    columns = (
        Column("method"),
        Column("trained parameters", digits=0),
        Column("adapter, MB", digits=2),
        Column("Dice, known structures", best="highest"),
        Column("Dice, new structures", best="highest"),
    )
    structures = tuple(results[0].scores.classes)
    per_class = [
        (
            r.method,
            *(
                r.scores.classes[name].mean["dice"] if name in r.scores.classes else None
                for name in structures
            ),
        )
        for r in results
    ]
    curves = {r.method: _curve(r) for r in results if r.run.epochs}
    return Page(
        title="fseft demo",
        subtitle=f"{request.k} labelled phantoms, {request.test_cases} unseen ones, scored on their own grid",
        summary=(
            Highlight(
                "best on new structures", best.method, f"Dice {best.mean_dice(LEFT_OUT) or 0:.3f}"
            ),
            Highlight(
                "its file", f"{best.adapter.path.stat().st_size / 1e6:.2f} MB", "safetensors"
            ),
            Highlight("training", f"{request.minutes:g} min", "for each method, on the CPU"),
        ),
        sections=(
            Section(
                "What was reached",
                f"The embedded model was pre-trained on phantoms without {', '.join(LEFT_OUT)}: these are new to it. "
                f"It knows {', '.join(KNOWN)}, but not this scanner.",
                tables=(Table("Mean Dice", columns, tuple(table_rows(results))),),
            ),
            Section(
                "Structure by structure",
                "Mean Dice over the unseen phantoms.",
                tables=(
                    Table(
                        "Dice",
                        (Column("method"), *(Column(name, best="highest") for name in structures)),
                        tuple(per_class),
                    ),
                ),
            ),
            Section(
                "How it looks",
                "The first unseen phantom.",
                figures=_pictures(request, data, results),
            ),
            Section(
                "How it learned",
                "Training loss (soft Dice) over time.",
                figures=(Figure("loss", line_chart(curves, x_label="seconds", y_label="loss")),),
            ),
        ),
        footer="Phantoms show that the chain works; they say nothing about real patients.",
    )


def _curve(result: Result) -> list[tuple[float, float]]:
    lines = result.adapter.path.with_name("log.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    return [(entry["seconds"], entry["loss"]) for entry in entries]


def _pictures(request: DemoRequest, data: Path, results: tuple[Result, ...]) -> tuple[Figure, ...]:
    """Axial and coronal slices of the first unseen case: the reference, then each method."""
    image_file = min((data / "imagesTs").iterdir())
    case = image_file.name.removesuffix("_0000.nii.gz")
    volume = read_volume(image_file)
    image, geometry = reorient(volume.array, volume.geometry, "RAS")
    label_files = [data / "labelsTs" / f"{case}.nii.gz"]
    label_files += [request.folder / "predictions" / r.method / f"{case}.nii.gz" for r in results]
    labels = []
    for file in label_files:
        found = read_labels(file)
        labels.append(reorient(found.array, found.geometry, "RAS")[0][0])
    ids = results[0].run.labels
    legend = {
        name: tuple(int(v) for v in distinct_colours(max(ids.values()))[value - 1])
        for name, value in ids.items()
    }
    figures = []
    for axis, name in ((2, "axial"), (1, "coronal")):
        index = best_slice(labels[0], axis)
        row = [
            draw_slice(image[0], one, geometry.spacing_mm, axis=axis, index=index, window=WINDOW)
            for one in labels
        ]
        caption = f"{name}: reference, " + ", ".join(result.method for result in results)
        figures.append(Figure(caption, encode_png(side_by_side(row)), legend=legend))
    return tuple(figures)
