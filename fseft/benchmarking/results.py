"""What `fseft benchmark` found: trials, rows of means over seeds, and the tables that show them."""

from __future__ import annotations

import csv
import io
from statistics import fmean, stdev
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from fseft.errors import pluralise
from fseft.metrics.statistics import LEVEL, Difference, paired_difference
from fseft.schemas import Document, FrozenModel

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray


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
    cases: dict[str, dict[str, float | None]] = Field(
        default={}, description="Dice by held-out case and structure"
    )
    warnings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """How it is told."""
        return f"{self.model}, {self.method}, k = {self.k}, seed {self.seed}"


class Row(FrozenModel):
    """A model and a method at one k: means over seeds, and the sample deviation of Dice over them.

    `difference` is its Dice less that of the row with the same k that all are compared with.
    """

    model: str
    method: str
    k: int
    misfit: str = ""
    trained_parameters: int = 0
    adapter_bytes: int = 0
    seconds: float = 0.0
    dice: float | None = None
    dice_std: float | None = None
    nsd: float | None = None
    hd95_mm: float | None = None
    difference: Difference | None = None


class Benchmark(Document):
    """All that was found.

    Attributes:
        rows: Of what was done with every seed.
        against: The method that all are compared with; empty: the best row of each k.
        failed: Trials that failed, and why.
    """

    dataset: str
    models: tuple[str, ...]
    structures: tuple[str, ...]
    test: tuple[str, ...]
    pool: tuple[str, ...]
    seeds: tuple[int, ...]
    tolerance_mm: float
    settings: tuple[str, ...]
    minutes: float | None
    against: str
    versions: dict[str, str]
    rows: tuple[Row, ...] = ()
    trials: tuple[Trial, ...] = ()
    failed: dict[str, str] = Field(default={}, description="trial: why")


COLUMNS = ("method", "k", "Dice", "NSD", "HD95", "trained", "MB", "min")


def summarise(trials: Sequence[Trial], seeds: Sequence[int], against: str = "") -> tuple[Row, ...]:
    """One row for each model, method and k that was done with every seed, in the order of the trials.

    Args:
        trials: Of all of them, or some that do not go together.
        seeds: That there should be.
        against: The method to compare with, of the same model; empty: the best row.
    """
    groups: dict[tuple[str, str, int], list[Trial]] = {}
    for trial in trials:
        groups.setdefault((trial.model, trial.method, trial.k), []).append(trial)
    groups = {
        place: group
        for place, group in groups.items()
        if {trial.seed for trial in group} == set(seeds)
    }
    rows = {place: _row(group) for place, group in groups.items()}
    scored = {place: row.dice for place, row in rows.items() if row.dice is not None}
    for place in scored:
        same_k = [other for other in scored if other[2] == place[2]]
        best = max(same_k, key=scored.__getitem__)
        other = (place[0], against, place[2]) if against else best
        if other in scored and other != place:
            difference = paired_difference(*_scores(groups[place], groups[other]))
            rows[place] = rows[place].model_copy(update={"difference": difference})
    return tuple(rows.values())


def _row(trials: Sequence[Trial]) -> Row:
    first = trials[0]
    dice = _known(trials, "dice")
    means = {
        name: fmean(found) for name in ("dice", "nsd", "hd95_mm") if (found := _known(trials, name))
    }
    return Row(
        model=first.model,
        method=first.method,
        k=first.k,
        misfit=first.misfit,
        trained_parameters=first.trained_parameters,
        adapter_bytes=first.adapter_bytes,
        seconds=fmean(trial.seconds for trial in trials),
        dice_std=stdev(dice) if len(dice) > 1 else None,
        **means,
    )


def _known(trials: Iterable[Trial], name: str) -> list[float]:
    return [value for trial in trials if (value := getattr(trial, name)) is not None]


def _scores(*groups: Sequence[Trial]) -> list[NDArray[np.float64]]:
    """Of each group (seeds, cases, structures), the same cases and structures in all; NaN where there is no score."""
    every = [trial.cases for group in groups for trial in group]
    cases = sorted(set().union(*every))
    structures = sorted(set().union(*(scores for found in every for scores in found.values())))

    def of(trial: Trial) -> list[list[float | None]]:
        return [[trial.cases.get(case, {}).get(name) for name in structures] for case in cases]

    return [np.array([of(trial) for trial in group], float) for group in groups]


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


def difference_cells(row: Row, name: str, against: str) -> tuple[str, ...]:
    """A line of the table of differences."""
    found = row.difference
    if found is None:  # it is what others are compared with, or there is nothing to compare with
        return (
            name,
            str(row.k),
            "-" if against and row.method != against else against or "the best",
            "",
        )
    interval = (
        "too few cases" if found.low is None else f"{_signed(found.low)} to {_signed(found.high)}"
    )
    return (name, str(row.k), _signed(found.mean), interval)


def tables(found: Benchmark) -> Iterable[tuple[tuple[str, ...], list[tuple[str, ...]]]]:
    """The columns and lines of both; the second only where there is something to compare."""
    named = [(row, name) for row, name in _named(found) if not row.misfit]
    if named:
        yield COLUMNS, [score_cells(row, name) for row, name in named]
    if any(row.difference for row, _ in named):
        columns = (
            "method",
            "k",
            f"Dice less that of {found.against or 'the best'}",
            f"{LEVEL:.0%} interval",
        )
        yield (
            columns,
            [
                difference_cells(row, name, found.against)
                for row, name in named
                if row.dice is not None
            ],
        )


def _named(found: Benchmark) -> list[tuple[Row, str]]:
    several = len(found.models) > 1
    return [(row, f"{row.model} {row.method}" if several else row.method) for row in found.rows]


def left_out(found: Benchmark) -> list[str]:
    """Why there is no row of some methods."""
    misfits = dict.fromkeys(f"{name}: {row.misfit}" for row, name in _named(found) if row.misfit)
    return [*misfits, *(f"{name} failed: {cause}" for name, cause in found.failed.items())]


def explanation(found: Benchmark) -> str:
    """What the numbers are."""
    return (
        f"{pluralise(len(found.test), 'unseen case')}, {pluralise(len(found.seeds), 'seed')}: means over seeds, ± "
        f"their deviation. NSD within {found.tolerance_mm:g} mm, HD95 in mm; trained: parameters; min: of training. "
        "Intervals are over samples of unseen cases."
    )


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{round(value, 3) + 0.0:+.3f}"


def to_markdown(found: Benchmark) -> str:
    """Both tables, for a README or a paper."""
    lines = [f"# {found.dataset}: {', '.join(found.structures)}", "", explanation(found)]
    for columns, rows in tables(found):
        rule = ["---", *["---:"] * (len(columns) - 1)]
        lines += ["", *(f"| {' | '.join(cells)} |" for cells in (columns, rule, *rows))]
    if left_out(found):
        lines += ["", *(f"- {line}" for line in left_out(found))]
    how = {
        "models": ", ".join(found.models),
        "settings": ", ".join(found.settings) or "as by default",
        "minutes of each training": "" if found.minutes is None else f"{found.minutes:g}",
        "seeds": ", ".join(map(str, found.seeds)),
        "unseen cases": ", ".join(found.test),
        "learned from": f"some of {len(found.pool)} other cases",
        "versions": ", ".join(f"{name} {version}" for name, version in found.versions.items()),
    }
    lines += ["", *(f"- {key}: {value}" for key, value in how.items() if value)]
    return "\n".join(lines) + "\n"


def to_csv(found: Benchmark) -> str:
    """One line per trial, held-out case and structure; a structure that is not there, nor found, has no Dice."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    told = ("model", "method", "k", "seed", "trained_parameters", "adapter_bytes", "seconds")
    writer.writerow([*told, "case", "structure", "dice"])
    for trial in found.trials:
        values = [getattr(trial, name) for name in told]
        for case, structures in trial.cases.items():
            writer.writerows(
                [*values, case, structure, dice] for structure, dice in structures.items()
            )
    return text.getvalue()
