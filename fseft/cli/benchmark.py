"""`fseft benchmark`: compare methods and models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fseft.cli import completion
from fseft.cli.console import ConsoleCallbacks
from fseft.cli.options import (
    COMPUTE,
    DATA,
    MODEL,
    OUTPUT,
    SCORING,
    TRAINING,
    AnnotatedSlices,
    DatasetFolder,
    Device,
    IgnoreLabel,
    Json,
    Labels,
    Memory,
    Metrics,
    Minutes,
    MissingLabel,
    Reader,
    Strict,
    Tolerance,
    Workspace,
    output_folder,
)
from fseft.errors import FseftError, pluralise

if TYPE_CHECKING:
    from fseft.benchmarking.configure import BenchmarkRequest
    from fseft.benchmarking.results import Benchmark, Trial
    from fseft.metrics.fields import MetricColumn


def benchmark(
    dataset: DatasetFolder,
    model: Annotated[
        list[str],
        typer.Option(
            metavar="NAME,...",
            help="Foundation models (`fseft models` lists them).",
            autocompletion=completion.models,
            rich_help_panel=MODEL,
        ),
    ],
    method: Annotated[
        list[str],
        typer.Option(
            metavar="NAME,...",
            help="Methods (`fseft methods` lists them).",
            autocompletion=completion.methods,
            rich_help_panel=MODEL,
        ),
    ],
    output: Annotated[
        Path,
        output_folder("Folder for tables, runs and predictions."),
    ],
    k: Annotated[
        list[str] | None,
        typer.Option(
            "--k",
            "-k",
            metavar="N,...",
            help="Numbers of training cases. Default: 5.",
            rich_help_panel=DATA,
        ),
    ] = None,
    seed: Annotated[
        list[str] | None,
        typer.Option(
            metavar="N,...",
            help="Random seeds; each draws other training cases. Default: 0.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="[METHOD.]KEY=VALUE",
            help="Setting of all methods, or of one; as for `adapt`; repeatable.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    labels: Labels = None,
    cases: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME,...",
            help="Use these cases only: names, or a text file with one name per line.",
            rich_help_panel=DATA,
        ),
    ] = None,
    test: Annotated[
        list[str] | None,
        typer.Option(
            metavar="N|NAME,...",
            help="Test cases, never trained on: their number, names, or a text file.",
            rich_help_panel=DATA,
        ),
    ] = None,
    test_images: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder of separate test scans.", rich_help_panel=DATA),
    ] = None,
    test_labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Folder of the labels of these scans.", rich_help_panel=DATA
        ),
    ] = None,
    mapping: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="STRUCTURE=CLASS",
            help="Class of the model to start from, as for `adapt`.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    minutes: Minutes = None,
    metrics: Metrics = None,
    baseline: Annotated[
        str,
        typer.Option(
            metavar="METHOD",
            help="Method to compare the others with. Default: the best for each k.",
            rich_help_panel=SCORING,
        ),
    ] = "",
    against: Annotated[str, typer.Option(hidden=True)] = "",
    tolerance: Tolerance = "2mm",
    memory: Memory = "",
    device: Device = "auto",
    workers: Annotated[
        int,
        typer.Option(min=1, help="Number of trials at the same time.", rich_help_panel=COMPUTE),
    ] = 1,
    cluster: Annotated[
        str,
        typer.Option(
            metavar="tcp://HOST:PORT",
            help="Address of a running dask scheduler that runs the trials instead.",
            rich_help_panel=COMPUTE,
        ),
    ] = "",
    strict: Strict = False,
    reader: Reader = "",
    ignore_label: IgnoreLabel = None,
    annotated_slices: AnnotatedSlices = "all",
    missing_label: MissingLabel = "absent",
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Discard existing runs. Default: resume or keep them.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    as_json: Json = False,
    workspace: Workspace = Path(),
) -> int:
    """Compare methods and models for each k and seed on the same unseen cases.

    By default 20 labelled cases are held out, or half of fewer than 40. Writes benchmark.md,
    benchmark.csv and benchmark.json. Run again to resume, or with more methods or seeds: finished
    trials are kept.

    For example:

    fseft benchmark livers --model phantom-tiny --method lora,full -k 1,5 -o bench

    fseft benchmark livers --model phantom-tiny --method lora --seed 0,1 -o bench
    """
    from fseft import api
    from fseft.cli import parsing

    result = api.benchmark(
        dataset,
        parsing.names(model) or (),
        parsing.names(method) or (),
        output,
        ks=parsing.whole_numbers("--k", k or ["5"], minimum=1),
        seeds=parsing.whole_numbers("--seed", seed or ["0"], minimum=0),
        settings=parsing.parse_settings("--set", settings or ()),
        labels=parsing.names(labels),
        cases=parsing.case_names(cases),
        test=parsing.case_names(test),
        test_images=test_images,
        test_labels=test_labels,
        class_mapping=dict(parsing.pairs("--map", mapping or ())),
        minutes=minutes,
        metrics=parsing.names(metrics),
        baseline=baseline or against,
        tolerance_mm=parsing.parse_tolerance(tolerance),
        memory_bytes=parsing.parse_memory(memory),
        device=device,
        workers=cluster or workers,
        strict=strict,
        reader=reader,
        ignore_label=ignore_label,
        annotated_slices=annotated_slices,
        missing_label=missing_label,
        overwrite=overwrite,
        workspace=workspace,
        callbacks=_BenchmarkCallbacks(),
    )
    return _report(result, output, as_json=as_json)


def _report(result: Benchmark, output: Path, *, as_json: bool) -> int:
    """Prints the result, and returns the exit status: 2 if a trial failed."""
    from fseft.cli import console

    _report_warnings(result)
    failure = _failure(result)
    if as_json:
        error = {"error": {"message": str(failure), "exit_code": 2}} if failure else {}
        console.show_json({**result.model_dump(mode="json"), **error})
    else:
        _show(result, output)
    if failure:
        console.fail(str(failure))
        return 2
    return 0


def _show(result: Benchmark, output: Path) -> None:
    """Print the tables and where they are stored."""
    from fseft.benchmarking.tables import excluded, explanation, tables
    from fseft.cli import console

    for columns, rows in tables(result):
        console.show_table(columns, rows, right=columns[1:])
    files = f"{output / 'benchmark.md'}, benchmark.csv and benchmark.json"
    console.show_lines([*excluded(result), explanation(result), files])


def _failure(result: Benchmark) -> FseftError | None:
    """Returns the error of a benchmark in which trials failed; their messages have been shown."""
    failed = len(result.failed)
    if not failed:
        return None
    trials = pluralise(failed + len(result.trials), "trial")
    hint = "Fix the causes above, and run again: the other trials are kept."
    return FseftError(f"{failed} of {trials} failed", hint=hint)


class _BenchmarkCallbacks(ConsoleCallbacks):
    """Show the progress, and the result of each trial."""

    metric: MetricColumn

    def on_start(self, config: BenchmarkRequest, first_epoch: int) -> None:
        """Remember the metric to show."""
        from fseft.metrics.fields import MetricColumn

        del first_epoch
        self.metric = MetricColumn.of(config.metrics[0])

    def on_trial_end(self, trial: Trial) -> None:
        """Show the score of a trial and its training time."""
        from fseft.cli.console import duration, note

        if trial.incompatibility:
            note(f"{trial.name}: {trial.incompatibility}")
            return
        score = f"{self.metric.title} {self.metric.text(trial.mean)}"
        note(f"{trial.name}: {score}, trained in {duration(trial.seconds)}")


def _report_warnings(result: Benchmark) -> None:
    """Print each warning of the trials once."""
    from fseft.cli.console import warn

    trials: dict[str, list[str]] = {}
    for trial in result.trials:
        for warning in trial.warnings:
            trials.setdefault(warning, []).append(trial.name)
    for warning, names in trials.items():
        others = len(names) - 1
        more = f" and {pluralise(others, 'more trial')}" if others else ""
        warn(f"{names[0]}{more}: {warning}")
