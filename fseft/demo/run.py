"""`fseft demo`: the whole chain on made-up scans, with a table and a page to look at."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fseft.adaptation.configure import AdaptRequest, Listener
from fseft.adaptation.run import adapt
from fseft.demo.phantom import LEFT_OUT, PhantomSet, write_phantoms
from fseft.evaluation.matching import match_files
from fseft.evaluation.run import evaluate
from fseft.inference.run import PredictRequest, predict
from fseft.planning.plan import make_plan
from fseft.planning.preprocessing import preprocess
from fseft.reporting.figures import best_slice, colours, curve_svg, overlay, png, side_by_side
from fseft.reporting.page import Column, Figure, Highlight, Page, Section, Table, render_page
from fseft.volume.geometry import reorient
from fseft.volume.image import read_labels, read_volume
from fseft.workspace import Workspace, write_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fseft.adaptation.run import Adaptation
    from fseft.learn.training.progress import Epoch
    from fseft.metrics.scores import Scores

MODEL = "phantom-tiny"
KNOWN = ("liver", "kidney_left", "vertebrae")
METHODS = ("zero-shot", "linear-probe", "lora", "scratch")
WINDOW = (-160.0, 240.0)
CROPS = "crops_per_step=2"  # as many as keep a step under a second on two cores


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
    adaptation: Adaptation
    scores: Scores

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


def run_demo(
    request: DemoRequest,
    *,
    say: Callable[[str], None] = lambda _: None,
    on_step: Callable[[Epoch], None] = lambda _: None,
) -> Demo:
    """Make phantoms of another scanner, then plan, preprocess, adapt, predict and evaluate with four methods.

    Everything lies below `request.folder`; a second run goes on where the first was stopped.
    """
    store = Workspace(request.folder)
    data = request.folder / "data" / f"phantom-torso-{request.seed}"
    if not (data / "dataset.json").is_file():
        say(
            f"making {request.k} labelled and {request.test_cases} unseen phantoms, as from another scanner"
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
    say("plan and preprocess")
    _, plan = make_plan(data, MODEL, store)
    preprocess(data, plan, store)
    results = tuple(_one_method(request, data, store, method, say, on_step) for method in METHODS)
    page = request.folder / "index.html"
    write_text(page, render_page(_page(request, data, results)))
    return Demo(results, page)


def _one_method(
    request: DemoRequest,
    data: Path,
    store: Workspace,
    method: str,
    say: Callable[[str], None],
    on_step: Callable[[Epoch], None],
) -> Result:
    say(f"{method}: adapt, predict, evaluate")
    asked = AdaptRequest(
        folder=data,
        model=MODEL,
        method=method,
        k=request.k,
        seed=request.seed,
        settings=(CROPS, "early_stopping=false"),
        minutes=request.minutes,
        device="cpu",
        overwrite=True,
    )
    adaptation = adapt(asked, store, Listener(step=on_step))
    output = request.folder / "predictions" / method
    predict(PredictRequest((data / "imagesTs",), output, (adaptation.adapter,)), store)
    scores = evaluate(match_files(output, data / "labelsTs"), workers=1)
    return Result(method, adaptation, scores)


def table_rows(results: tuple[Result, ...]) -> list[tuple[str | float | None, ...]]:
    """Method, parameters, MB, and mean Dice over the known and over the new structures."""
    return [
        (
            result.method,
            result.adaptation.run.trained_parameters,
            result.adaptation.adapter.stat().st_size / 1e6,
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
    curves = {r.method: _curve(r) for r in results if r.adaptation.run.epochs}
    return Page(
        title="fseft demo",
        subtitle=f"{request.k} labelled phantoms, {request.test_cases} unseen ones, scored on their own grid",
        summary=(
            Highlight(
                "best on new structures", best.method, f"Dice {best.mean_dice(LEFT_OUT) or 0:.3f}"
            ),
            Highlight(
                "its file", f"{best.adaptation.adapter.stat().st_size / 1e6:.2f} MB", "safetensors"
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
                figures=(Figure("loss", curve_svg(curves, x_label="seconds", y_label="loss")),),
            ),
        ),
        footer="Phantoms show that the chain works; they say nothing about real patients.",
    )


def _curve(result: Result) -> list[tuple[float, float]]:
    lines = (result.adaptation.folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
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
    ids = results[0].adaptation.run.labels
    legend = {
        name: tuple(int(v) for v in colours(max(ids.values()))[value - 1])
        for name, value in ids.items()
    }
    figures = []
    for axis, name in ((2, "axial"), (1, "coronal")):
        index = best_slice(labels[0], axis)
        row = [
            overlay(image[0], one, geometry.spacing_mm, axis=axis, index=index, window=WINDOW)
            for one in labels
        ]
        caption = f"{name}: reference, " + ", ".join(result.method for result in results)
        figures.append(Figure(caption, png(side_by_side(row)), legend=legend))
    return tuple(figures)
