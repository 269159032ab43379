"""Tables of a benchmark: terminal, Markdown and CSV."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from fseft.errors import pluralise
from fseft.escaping import escape_markdown
from fseft.metrics.fields import explain
from fseft.metrics.statistics import CONFIDENCE_LEVEL

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fseft.benchmarking.results import Benchmark, Row, Trial
    from fseft.metrics.fields import MetricColumn

    Cells = tuple[str, ...]

_TRIAL_FIELDS = (
    "model",
    "method",
    "k",
    "seed",
    "trained_parameters",
    "adapter_bytes",
    "seconds",
)


def tables(benchmark: Benchmark) -> Iterator[tuple[Cells, list[Cells]]]:
    """Yields the columns and rows of each table.

    The first table has the scores, the second the differences to the baseline; it is left out
    where nothing can be compared.
    """
    rows = [row for row in benchmark.rows if not row.incompatibility]
    if not rows:
        return
    titles = [metric.title for metric in benchmark.metrics]
    columns = ("method", "k", *titles, "trained", "MB", "min")
    yield columns, [_score_cells(benchmark, row) for row in rows]
    if not any(row.difference for row in rows):
        return
    metric = benchmark.metrics[0]
    baseline = benchmark.baseline or "the best"
    interval = f"{CONFIDENCE_LEVEL:.0%} interval"
    scored = [row for row in rows if row.mean.get(metric.key) is not None]
    yield (
        ("method", "k", f"{metric.title} minus that of {baseline}", interval),
        [_difference_cells(benchmark, row) for row in scored],
    )


def _score_cells(benchmark: Benchmark, row: Row) -> Cells:
    scores = [metric.text(row.mean) for metric in benchmark.metrics]
    first = benchmark.metrics[0]
    if row.std.get(first.key) is not None:
        scores[0] += f" ± {first.text(row.std)}"
    return (
        row_name(benchmark, row),
        str(row.k),
        *scores,
        f"{row.trained_parameters:,}",
        f"{row.adapter_bytes / 1e6:.2f}",
        f"{row.seconds / 60:.1f}",
    )


def _difference_cells(benchmark: Benchmark, row: Row) -> Cells:
    name, k = row_name(benchmark, row), str(row.k)
    difference, metric = row.difference, benchmark.metrics[0]
    if difference is None:
        baseline = benchmark.baseline
        is_baseline = not baseline or row.method == baseline
        return (name, k, (baseline or "the best") if is_baseline else "-", "")
    mean = _signed(difference.mean, metric)
    if difference.low is None or difference.high is None:
        return (name, k, mean, "too few cases")
    interval = f"{_signed(difference.low, metric)} to {_signed(difference.high, metric)}"
    return (name, k, mean, interval)


def row_name(benchmark: Benchmark, row: Row | Trial) -> str:
    """Returns the method, with the model where there are several."""
    return f"{row.model} {row.method}" if len(benchmark.models) > 1 else row.method


def _signed(value: float, metric: MetricColumn) -> str:
    digits = metric.digits
    return f"{round(value, digits) + 0.0:+.{digits}f}"  # adding 0 turns -0.0 into 0.0


def excluded(benchmark: Benchmark) -> list[str]:
    """Returns a line for each method without a row: incompatible with the model, or failed."""
    lines: dict[str, None] = {}
    for row in benchmark.rows:
        if row.incompatibility:
            lines[f"{row_name(benchmark, row)}: {row.incompatibility}"] = None
    for name, message in benchmark.failed.items():
        lines[f"{name} failed: {message}"] = None
    return list(lines)


def explanation(benchmark: Benchmark) -> str:
    """Returns the text that explains the numbers in the tables."""
    test, seeds = len(benchmark.test), len(benchmark.seeds)
    counts = f"{pluralise(test, 'unseen case')}, {pluralise(seeds, 'seed')}"
    sentences = (
        f"{counts}: means over seeds, ± their standard deviation.",
        explain(benchmark.metrics, benchmark.tolerance_mm),
        "trained: parameters; min: training time. Intervals are over samples of unseen cases.",
    )
    return " ".join(filter(None, sentences))


def to_markdown(benchmark: Benchmark) -> str:
    """Returns both tables and the configuration as Markdown, for a README or a paper."""
    title = escape_markdown(f"{benchmark.dataset}: {', '.join(benchmark.structures)}")
    lines = [f"# {title}", "", explanation(benchmark)]
    for columns, rows in tables(benchmark):
        rule = ("---", *["---:"] * (len(columns) - 1))
        lines += ["", _markdown_line(columns), f"| {' | '.join(rule)} |"]
        lines += map(_markdown_line, rows)
    if excluded(benchmark):
        lines += ["", *(f"- {escape_markdown(line)}" for line in excluded(benchmark))]
    lines.append("")
    for key, value in configuration(benchmark).items():
        if value:
            lines.append(f"- {key}: {escape_markdown(value)}")
    return "\n".join(lines) + "\n"


def _markdown_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(escape_markdown, cells))} |"


def configuration(benchmark: Benchmark) -> dict[str, str]:
    """Returns what the results depend on, in words; empty values are unset."""
    minutes = benchmark.minutes
    versions = [f"{name} {version}" for name, version in benchmark.versions.items()]
    return {
        "models": ", ".join(benchmark.models),
        "settings": ", ".join(benchmark.settings) or "defaults",
        "minutes of each training": "" if minutes is None else f"{minutes:g}",
        "seeds": ", ".join(map(str, benchmark.seeds)),
        "unseen cases": ", ".join(benchmark.test),
        "training cases": f"drawn from {len(benchmark.pool)} other cases",
        "versions": ", ".join(versions),
    }


def to_csv(benchmark: Benchmark) -> str:
    """Returns a line per trial, test case and structure; undefined values are empty cells."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    keys = [metric.key for metric in benchmark.metrics]
    writer.writerow([*_TRIAL_FIELDS, "case", "structure", *keys])
    for trial in benchmark.trials:
        fields = [getattr(trial, name) for name in _TRIAL_FIELDS]
        for case, structures in trial.scores.items():
            for structure, values in structures.items():
                scores = [values.get(key) for key in keys]
                writer.writerow([*fields, case, structure, *scores])
    return text.getvalue()
