"""`fseft benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fseft.cli.console import ConsoleCallbacks
from fseft.cli.options import (
    DatasetFolder,
    Device,
    Json,
    Memory,
    Metrics,
    Minutes,
    Strict,
    Workspace,
)
from fseft.errors import FseftError, pluralise

if TYPE_CHECKING:
    from fseft.benchmarking.configure import BenchmarkRequest
    from fseft.benchmarking.results import Benchmark, Trial
    from fseft.metrics.fields import MetricColumn


def benchmark(
    dataset: DatasetFolder,
    model: Annotated[list[str], typer.Option(help="Foundation models: a,b,...")],
    method: Annotated[
        list[str], typer.Option(help="Methods: a,b,...; `fseft methods` lists them.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the tables, runs and predictions.")
    ],
    k: Annotated[
        list[str] | None,
        typer.Option("--k", "-k", help="Numbers of cases to learn from. [default: 5]"),
    ] = None,
    seed: Annotated[
        list[str] | None,
        typer.Option(help="Each draws its own k cases, for all methods the same. [default: 0]"),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="key=value for all methods, METHOD.key=value for one; as of `adapt`."
        ),
    ] = None,
    labels: Annotated[list[str] | None, typer.Option(help="Only these structures: a,b,...")] = None,
    cases: Annotated[
        list[str] | None,
        typer.Option(help="Use these cases alone: a,b,... or a text file with one name per line."),
    ] = None,
    test: Annotated[
        list[str] | None,
        typer.Option(
            help="Labelled cases that are scored and never learned from: a number, names, or a text file."
        ),
    ] = None,
    test_images: Annotated[
        Path | None, typer.Option(help="Score these scans instead; a folder.")
    ] = None,
    test_labels: Annotated[Path | None, typer.Option(help="Their labels; a folder.")] = None,
    mapping: Annotated[
        list[str] | None, typer.Option("--map", help="STRUCTURE=CLASS, as of `adapt`.")
    ] = None,
    minutes: Minutes = None,
    metrics: Metrics = None,
    baseline: Annotated[
        str,
        typer.Option(help="Method to compare the others with. Default: the best for each k."),
    ] = "",
    against: Annotated[str, typer.Option(hidden=True)] = "",
    tolerance: Annotated[str, typer.Option(help="Surface deviation that NSD accepts.")] = "2mm",
    memory: Memory = "",
    device: Device = "auto",
    workers: Annotated[int, typer.Option(min=1, help="Processes, one trial each.")] = 1,
    cluster: Annotated[
        str,
        typer.Option(
            metavar="tcp://HOST:PORT",
            help="A running dask scheduler, whose workers take the trials.",
        ),
    ] = "",
    strict: Strict = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Make all runs anew; leave it out to go on.")
    ] = False,
    as_json: Json = False,
    workspace: Workspace = Path(),
) -> None:
    """Compare methods and models: every one with every k and seed, scored on the same unseen cases.

    By default 20 labelled cases are held out, or half of fewer than 40. Writes benchmark.md, benchmark.csv and
    benchmark.json. Run again to go on, or with more methods or seeds beside these: what is there is not made again.
    """
    from fseft import api
    from fseft.cli import console
    from fseft.cli.parsing import (
        case_names,
        names,
        pairs,
        parse_memory,
        parse_settings,
        whole_numbers,
    )
    from fseft.evaluation.run import parse_tolerance

    found = api.benchmark(
        dataset,
        names(model),
        names(method),
        output,
        ks=whole_numbers("--k", k or ["5"], minimum=1),
        seeds=whole_numbers("--seed", seed or ["0"], minimum=0),
        settings=parse_settings("--set", settings or ()),
        labels=names(labels),
        cases=case_names(cases),
        test=case_names(test),
        test_images=test_images,
        test_labels=test_labels,
        class_mapping=dict(pairs("--map", mapping or ())),
        minutes=minutes,
        metrics=names(metrics),
        baseline=baseline or against,
        tolerance_mm=parse_tolerance(tolerance),
        memory_bytes=parse_memory(memory) if memory else None,
        device=device,
        workers=cluster or workers,
        strict=strict,
        overwrite=overwrite,
        workspace=workspace,
        callbacks=_BenchmarkCallbacks(),
    )
    _warn(found)
    if as_json:
        console.show_json(found.model_dump(mode="json"))
    else:
        _show(found, output)
    if found.failed:
        cause = f"{len(found.failed)} of {pluralise(len(found.failed) + len(found.trials), 'trial')} failed"
        raise FseftError(cause, hint="Mend what is told above, and run again: the others are kept.")


def _show(found: Benchmark, output: Path) -> None:
    from fseft.benchmarking.tables import excluded, explanation, tables
    from fseft.cli import console

    for columns, rows in tables(found):
        console.show_table(columns, rows, right=columns[1:])
    files = f"{output / 'benchmark.md'}, benchmark.csv and benchmark.json"
    console.show_lines([*excluded(found), explanation(found), files])


class _BenchmarkCallbacks(ConsoleCallbacks):
    """Show the progress, and the result of each trial."""

    metric: MetricColumn

    def on_start(self, config: BenchmarkRequest, first_epoch: int) -> None:
        """Note the metric to show."""
        from fseft.metrics.fields import MetricColumn

        del first_epoch
        self.metric = MetricColumn.of(config.metrics[0])

    def on_trial_end(self, trial: Trial) -> None:
        """Show how a trial ended."""
        from fseft.cli.console import duration, note

        if trial.incompatibility:
            note(f"{trial.name}: {trial.incompatibility}")
            return
        score = f"{self.metric.title} {self.metric.text(trial.mean)}"
        note(f"{trial.name}: {score}, trained in {duration(trial.seconds)}")


def _warn(found: Benchmark) -> None:
    """What may disappoint, once for all trials."""
    from fseft.cli.console import warn

    trials: dict[str, list[str]] = {}
    for trial in found.trials:
        for warning in trial.warnings:
            trials.setdefault(warning, []).append(trial.name)
    for warning, names in trials.items():
        more = f" and {pluralise(len(names) - 1, 'more trial')}" if len(names) > 1 else ""
        warn(f"{names[0]}{more}: {warning}")
