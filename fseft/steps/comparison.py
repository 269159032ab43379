"""What `fseft benchmark` found: trials, rows of means over seeds, and the tables that show them."""

from __future__ import annotations

import csv
import io
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from pydantic import Field

from fseft.documents import Document, Part
from fseft.score.statistics import LEVEL, Difference, paired_difference

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Trial(Document):
    """One adaptation, scored on the held-out cases; where method and model do not go together, `misfit` says why."""

    model: str
    method: str
    k: int
    seed: int
    key: str = ""
    misfit: str = ""
    support: tuple[str, ...] = ()
    trained_parameters: int = 0
    adapter_bytes: int = 0
    seconds: float = 0.0
    dice: float | None = None
    nsd: float | None = None
    hd95_mm: float | None = None
    cases: dict[str, float] = Field(default={}, description="mean Dice over the structures of each held-out case")
    warnings: tuple[str, ...] = ()


class Row(Part):
    """A model and a method at one k: means over seeds, and the sample deviation of Dice over them.

    `to_best` is its Dice less that of the best row of the same k, case by case, each a mean over seeds.
    """

    model: str
    method: str
    k: int
    seeds: tuple[int, ...]
    misfit: str = ""
    trained_parameters: int = 0
    adapter_bytes: int = 0
    seconds: float = 0.0
    dice: float | None = None
    dice_std: float | None = None
    nsd: float | None = None
    hd95_mm: float | None = None
    to_best: Difference | None = None


class Benchmark(Document):
    """All that was found."""

    dataset: str
    structures: tuple[str, ...]
    test: tuple[str, ...]
    tolerance_mm: float
    settings: tuple[str, ...]
    rows: tuple[Row, ...]
    trials: tuple[Trial, ...]


COLUMNS = ("method", "k", "Dice", "NSD", "HD95", "trained", "MB", "min")
AGAINST = ("method", "k", "Dice less that of the best", f"{LEVEL:.0%} interval")


def summarise(trials: Sequence[Trial]) -> tuple[Row, ...]:
    """One row for each model, method and k, in the order of the trials."""
    groups: dict[tuple[str, str, int], list[Trial]] = {}
    for trial in trials:
        groups.setdefault((trial.model, trial.method, trial.k), []).append(trial)
    rows = {place: _row(group) for place, group in groups.items()}
    cases = {place: _over_seeds(group) for place, group in groups.items()}
    for k in {trial.k for trial in trials}:
        scored = {place: row.dice for place, row in rows.items() if place[2] == k and row.dice is not None}
        best = max(scored, key=scored.__getitem__, default=None)
        for place in scored:
            if best is not None and place != best:
                to_best = paired_difference(cases[place], cases[best])
                rows[place] = rows[place].model_copy(update={"to_best": to_best})
    return tuple(rows.values())


def _row(trials: Sequence[Trial]) -> Row:
    first = trials[0]
    told = {"model": first.model, "method": first.method, "k": first.k, "misfit": first.misfit}
    dice = _known(trials, "dice")
    return Row(
        **told,
        seeds=tuple(trial.seed for trial in trials),
        trained_parameters=first.trained_parameters,
        adapter_bytes=first.adapter_bytes,
        seconds=fmean(trial.seconds for trial in trials),
        dice_std=stdev(dice) if len(dice) > 1 else None,
        **{name: fmean(found) if (found := _known(trials, name)) else None for name in ("dice", "nsd", "hd95_mm")},
    )


def _known(trials: Iterable[Trial], name: str) -> list[float]:
    return [value for trial in trials if (value := getattr(trial, name)) is not None]


def _over_seeds(trials: Sequence[Trial]) -> dict[str, float]:
    """Mean Dice of each case that every seed scored."""
    common = set.intersection(*(set(trial.cases) for trial in trials))
    return {case: fmean(trial.cases[case] for trial in trials) for case in sorted(common)}


def score_cells(row: Row, name: str) -> tuple[str, ...]:
    """A line of the table of scores; `name` is that of model and method."""
    spread = "" if row.dice_std is None else f" ± {row.dice_std:.3f}"
    return (
        name,
        str(row.k),
        f"{_number(row.dice, 3)}{spread}",
        _number(row.nsd, 3),
        _number(row.hd95_mm, 1),
        f"{row.trained_parameters:,}",
        f"{row.adapter_bytes / 1e6:.2f}",
        f"{row.seconds / 60:.1f}",
    )


def difference_cells(row: Row, name: str) -> tuple[str, ...]:
    """A line of the table of differences."""
    found = row.to_best
    if found is None:
        return (name, str(row.k), "the best", "")
    interval = "too few cases" if found.low is None else f"{found.low:+.3f} to {found.high:+.3f}"
    return (name, str(row.k), f"{found.mean:+.3f}", interval)


def tables(found: Benchmark) -> Iterable[tuple[tuple[str, ...], list[tuple[str, ...]]]]:
    """The columns and lines of both; the second only where there is something to compare."""
    named = [(row, name) for row, name in _named(found) if not row.misfit]
    yield COLUMNS, [score_cells(row, name) for row, name in named]
    if any(row.to_best for row, _ in named):
        yield AGAINST, [difference_cells(row, name) for row, name in named if row.dice is not None]


def _named(found: Benchmark) -> list[tuple[Row, str]]:
    several = len({row.model for row in found.rows}) > 1
    return [(row, f"{row.model} {row.method}" if several else row.method) for row in found.rows]


def misfits(found: Benchmark) -> list[str]:
    """Why there is no row of some methods."""
    return list(dict.fromkeys(f"{name}: {row.misfit}" for row, name in _named(found) if row.misfit))


def explanation(found: Benchmark) -> str:
    """What the numbers are."""
    return (
        f"{len(found.test)} unseen cases. Means over seeds, ± their deviation; NSD within {found.tolerance_mm:g} mm, "
        "HD95 in mm; trained: parameters; min: of training. Intervals are over samples of unseen cases."
    )


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def to_markdown(found: Benchmark) -> str:
    """Both tables, for a README or a paper."""
    lines = [f"# {found.dataset}: {', '.join(found.structures)}", "", explanation(found)]
    if found.settings:
        lines += ["", f"Settings: {', '.join(found.settings)}."]
    for columns, rows in tables(found):
        rule = ["---", *["---:"] * (len(columns) - 1)]
        lines += ["", *(f"| {' | '.join(cells)} |" for cells in (columns, rule, *rows))]
    lines += ["", *(f"- {line}" for line in misfits(found))] if misfits(found) else []
    return "\n".join(lines) + "\n"


def to_csv(found: Benchmark) -> str:
    """One line per trial and held-out case; a trial that is a misfit has none."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    told = ("model", "method", "k", "seed", "trained_parameters", "adapter_bytes", "seconds")
    writer.writerow([*told, "case", "dice"])
    for trial in found.trials:
        values: list[Any] = [getattr(trial, name) for name in told]
        writer.writerows([*values, case, dice] for case, dice in trial.cases.items())
    return text.getvalue()
