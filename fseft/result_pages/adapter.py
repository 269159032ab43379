"""Sections about an adapter: training, cross-validation, plan, weights, and how to reproduce it."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

from fseft.adaptation.repetition import options_of_run
from fseft.errors import FseftError, pluralise
from fseft.model_zoo.adapter_file import read_manifest
from fseft.model_zoo.adapter_path import adapter_path
from fseft.reporting.charts import line_chart
from fseft.reporting.page import Column, Figure, Section, Table
from fseft.result_pages.training_log import read_log
from fseft.schemas import Plan, Run
from fseft.workspace import file_digest, read_document

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from fseft.reporting.page import Value
    from fseft.result_pages.training_log import LoggedEpoch
    from fseft.schemas import CrossValidation, Manifest

RUN, PLAN = "run.json", "plan.json"
_MAX_CURVES = 8
_MAX_TEXT = 600  # characters of a value in a table
_ABOUT_CROPS = (
    "Dice is that on crops of the training cases: it shows what was learned, not how well new "
    "scans are segmented."
)


def read_run(folder: Path) -> Run | None:
    """Returns the finished run of a folder; None if there is no run document.

    Raises:
        FseftError: The document is damaged, or the run is not finished.
    """
    run = _stored_run(folder)
    if run and run.outcome != "finished":
        hint = "Run `fseft adapt` again: it resumes."
        raise FseftError(f"the run is not finished ({run.outcome})", file=folder, hint=hint)
    return run


def _stored_run(folder: Path) -> Run | None:
    path = folder / RUN
    return read_document(path, Run) if path.is_file() else None


def adapter_sections(adapter: Path) -> Iterator[Section]:
    """Yields the sections about an adapter, and about its run if its folder is that of a run.

    Of a run that is not finished nothing is shown: it may replace the adapter by another one.

    Args:
        adapter: The adapter file, or the folder of its run.

    Raises:
        FseftError: A file is missing or damaged.
    """
    file = adapter_path(adapter)
    folder = file.parent
    manifest = read_manifest(file)
    run = _stored_run(folder)
    if run and run.outcome != "finished":
        text = f"{folder}: the run is not finished ({run.outcome}); training and plan are left out."
        yield Section("Training", text)
        yield reproduction_section(file, manifest, None)
        return
    if run is not None:
        yield training_section(run, read_log(folder))
    if (folder / PLAN).is_file():
        yield plan_section(read_document(folder / PLAN, Plan), run)
    if run is not None:
        yield weights_section(run)
    yield reproduction_section(file, manifest, run)


def training_section(run: Run, epochs: tuple[LoggedEpoch, ...]) -> Section:
    """Shows the curves of a training, and how it ended."""
    end = f"; {run.stopped_by}" if run.stopped_by else ""
    text = (
        f"{run.trained_parameters:,} trained parameters, {pluralise(run.epochs, 'epoch')} in "
        f"{run.seconds:.0f} s{end}."
    )
    paragraphs = [text, *run.notes, *([_ABOUT_CROPS] if run.training_dice else [])]
    figures = []
    if epochs:
        loss = {"training loss": [(epoch.epoch, epoch.loss) for epoch in epochs]}
        chart = line_chart(loss, x_label="epoch", y_label="loss")
        figures.append(Figure("Training loss.", chart))
    if curves := _dice_curves(epochs):
        hidden = len(run.labels) - len(curves)
        more = f"; {hidden} more, of higher Dice, are left out" if hidden > 0 else ""
        chart = line_chart(curves, x_label="epoch", y_label="Dice")
        figures.append(Figure(f"Dice on crops of the training cases{more}.", chart))
    return Section("Training", "\n\n".join(paragraphs), figures=figures)


def _dice_curves(epochs: tuple[LoggedEpoch, ...]) -> dict[str, list[tuple[float, float]]]:
    """Returns structure -> points (epoch, Dice), of the structures of lowest last Dice."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for epoch in epochs:
        for name, value in epoch.dice.items():
            curves.setdefault(name, []).append((epoch.epoch, value))
    lowest_first = sorted(curves, key=lambda name: curves[name][-1][1])
    return {name: curves[name] for name in lowest_first[:_MAX_CURVES]}


def cross_validation_section(result: CrossValidation) -> Section:
    """Shows the Dice that is expected in new cases."""
    columns = [Column(title) for title in ("structure", "Dice", "from", "to", "cases")]
    expected = {**result.expected, "mean": result.mean}
    rows: list[tuple[Value, ...]] = [
        (name, dice.mean, dice.low, dice.high, dice.cases) for name, dice in expected.items()
    ]
    text = (
        "Each training case was segmented by an adapter that was trained on the others "
        f"({pluralise(len(result.folds), 'fold')}). The interval, from ... to, is that of the mean "
        "in cases like these, with a confidence of 95 %."
    )
    table = Table("Dice in cases that the adapter was not trained on", columns, rows)
    return Section("Cross-validation", text, tables=(table,))


def plan_section(plan: Plan, run: Run | None) -> Section:
    """Lists the decisions of the plan with their reasons."""
    decisions = [*plan.decisions, *(run.decisions if run else ())]
    columns = [Column("decision"), Column("value"), Column("reason")]
    rows = [(decision.name, decision.value, decision.reason) for decision in decisions]
    warnings = [f"Warning: {warning}." for warning in plan.warnings]
    table = Table("Decisions", columns, rows)
    return Section("Plan", "\n\n".join(warnings), tables=(table,))


def weights_section(run: Run) -> Section:
    """Shows where the weights of the model are from, and how they were loaded."""
    if not run.backbone:
        return Section("Weights", f"{run.model}: random weights.")
    tables = [_facts(run.model, run.backbone)]
    if run.head_rows:
        columns = [Column("structure"), Column("class of the model that its output starts from")]
        tables.append(Table("Head", columns, list(run.head_rows.items())))
    return Section("Weights", tables=tables)


def _clipped(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]} ..."


def _as_text(value: Any) -> str:
    """Writes plain data in a line."""
    if isinstance(value, dict):
        return "; ".join(f"{name}: {_as_text(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_as_text, value))
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)


def reproduction_section(file: Path, manifest: Manifest, run: Run | None) -> Section:
    """Lists what repeats the run: the command, its options, versions and digests."""
    packages = {item.distribution: item.version for item in manifest.plugins}
    tables = [
        _facts("Files and data", _sources(file, manifest, run)),
        _facts("Versions", {**packages, **manifest.versions}),
    ]
    if run is None:
        return Section("Reproduction", tables=tables)
    document = file.with_name(RUN)
    tables.insert(0, _facts("Options of fseft adapt", options_of_run(document)))
    command = ["fseft", "adapt", run.dataset, "--config", str(document), "-o", "repeated"]
    text = "The command needs the dataset and run.json; the options repeat the run without it."
    return Section("Reproduction", text, tables=tables, code=shlex.join(command))


def _sources(file: Path, manifest: Manifest, run: Run | None) -> dict[str, str]:
    digests = run.sources if run else {}
    return {
        "adapter": str(file),
        "adapter, sha256": file_digest(file),
        "weights, sha256": manifest.backbone_sha256 or "random weights",
        "licence": manifest.licence,
        "dataset": manifest.dataset,
        "training cases": ", ".join(manifest.support),
        "digest of the data": digests.get("data", ""),
        "digest of the plan": digests.get("plan", ""),
    }


def _facts(caption: str, facts: Mapping[str, Any]) -> Table:
    """Returns a table of names and values, without empty values."""
    columns = [Column("name"), Column("value")]
    rows = [(name, _clipped(_as_text(value))) for name, value in facts.items() if value != ""]
    return Table(caption, columns, rows)
