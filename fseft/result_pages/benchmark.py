"""Sections about a benchmark: tables, curves, and the cases of its best method."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.benchmarking.tables import configuration, excluded, explanation, row_name
from fseft.benchmarking.tables import tables as text_tables
from fseft.metrics.scores import mean
from fseft.reporting.charts import line_chart
from fseft.reporting.page import Column, Figure, Section, Table
from fseft.result_pages.scores import MAX_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fseft.benchmarking.results import Benchmark, Row, Trial
    from fseft.reporting.page import Value


def best_row(benchmark: Benchmark) -> Row | None:
    """Returns the row with the best mean of the first metric; None if no row has scores."""
    metric = benchmark.metrics[0]
    best: tuple[float, Row] | None = None
    for row in benchmark.rows:
        value = row.mean.get(metric.key)
        if value is None:
            continue
        rank = metric.rank(value)
        if best is None or rank > best[0]:
            best = (rank, row)
    return best[1] if best else None


def trial_of(benchmark: Benchmark, row: Row) -> Trial:
    """Returns the first trial of a row."""
    place = (row.model, row.method, row.k)
    return next(
        trial for trial in benchmark.trials if (trial.model, trial.method, trial.k) == place
    )


def benchmark_sections(benchmark: Benchmark) -> Iterator[Section]:
    """Yields the sections about all methods.

    Args:
        benchmark: The finished benchmark.
    """
    lines = [explanation(benchmark), *excluded(benchmark)]
    titles = ("Scores", "Differences")
    shown = [
        Table(title, [Column(column) for column in columns], rows)
        for title, (columns, rows) in zip(titles, text_tables(benchmark), strict=False)
    ]
    figures = [_curve(benchmark)] if len({row.k for row in benchmark.rows}) > 1 else []
    yield Section("Comparison", "\n\n".join(lines), tables=shown, figures=figures)
    yield _by_structure(benchmark)
    yield _by_case(benchmark)


def configuration_section(benchmark: Benchmark) -> Section:
    """Lists what the results depend on."""
    rows = [(name, value) for name, value in configuration(benchmark).items() if value]
    table = Table("Configuration", [Column("item"), Column("value")], rows)
    return Section("Reproduction", tables=(table,))


def _curve(benchmark: Benchmark) -> Figure:
    """Draws the first metric by the number of training cases."""
    metric = benchmark.metrics[0]
    points: dict[str, list[tuple[float, float]]] = {}
    for row in benchmark.rows:
        value = row.mean.get(metric.key)
        if value is not None:
            points.setdefault(row_name(benchmark, row), []).append((row.k, value))
    chart = line_chart(points, x_label="training cases", y_label=metric.title)
    return Figure(f"{metric.title} by the number of training cases.", chart)


def _by_structure(benchmark: Benchmark) -> Section:
    metric = benchmark.metrics[0]
    rows: list[tuple[Value, ...]] = []
    for row in _scored_rows(benchmark):
        values = [
            _mean_of(benchmark, row, structure=structure) for structure in benchmark.structures
        ]
        rows.append((_title(benchmark, row), *values))
    table = _by_method(benchmark, "structure", benchmark.structures, rows)
    return Section("Structures", f"Mean {metric.title} over cases and seeds.", tables=(table,))


def _by_case(benchmark: Benchmark) -> Section:
    metric = benchmark.metrics[0]
    rows: list[tuple[Value, ...]] = []
    for row in _scored_rows(benchmark):
        values = [_mean_of(benchmark, row, case=case) for case in benchmark.test]
        rows.append((_title(benchmark, row), *values))
    table = _by_method(benchmark, "case", benchmark.test, rows)
    text = f"Mean {metric.title} over structures and seeds."
    return Section("Cases", text, tables=(table,))


def _by_method(
    benchmark: Benchmark, kind: str, names: Sequence[str], rows: Sequence[Sequence[Value]]
) -> Table:
    """Returns a table with a row for each method, or, of many names, a row for each name."""
    metric = benchmark.metrics[0]
    if len(names) <= MAX_COLUMNS:
        columns = [Column("method"), *(Column(name, metric.digits) for name in names)]
        return Table(metric.title, columns, rows)
    methods = [str(row[0]) for row in rows]
    columns = [Column(kind), *(Column(method, metric.digits) for method in methods)]
    turned = [(name, *(row[number] for row in rows)) for number, name in enumerate(names, start=1)]
    return Table(metric.title, columns, turned)


def _scored_rows(benchmark: Benchmark) -> list[Row]:
    return [row for row in benchmark.rows if not row.incompatibility]


def _title(benchmark: Benchmark, row: Row) -> str:
    name = row_name(benchmark, row)
    if len({entry.k for entry in benchmark.rows}) == 1:
        return name
    return f"{name}, k = {row.k}"


def _mean_of(
    benchmark: Benchmark, row: Row, *, case: str = "", structure: str = ""
) -> float | None:
    """Returns the mean of the first metric over the trials of a row, of one case or structure."""
    key = benchmark.metrics[0].key
    return mean(
        values.get(key)
        for trial in benchmark.trials
        if (trial.model, trial.method, trial.k) == (row.model, row.method, row.k)
        for name, structures in trial.scores.items()
        if case in ("", name)
        for entry, values in structures.items()
        if structure in ("", entry)
    )
