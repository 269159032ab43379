"""Results of a benchmark: trials, and rows with their means over seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from fseft.metrics.fields import MetricColumn, MetricFields
from fseft.metrics.scores import mean, standard_deviation
from fseft.metrics.statistics import Difference, paired_difference
from fseft.schemas import Document

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

RowKey = tuple[str, str, int]
"""Model, method and k of a row."""


class Trial(MetricFields, Document):
    """One adaptation, scored on the test cases.

    Attributes:
        model: Name of the foundation model.
        method: Name of the adaptation method.
        k: Number of training cases.
        seed: Random seed.
        key: Digest of all that the scores depend on.
        incompatibility: Why model and method cannot be combined; empty if they can.
        support: Training cases.
        trained_parameters: Number of trained parameters.
        adapter_bytes: Size of the adapter file.
        seconds: Training time.
        mean: Mean of each metric, by its key.
        scores: Values by test case, structure and metric.
        warnings: Warnings of the adaptation that planning did not give.
    """

    _file_keys: ClassVar[dict[str, str]] = {"incompatibility": "misfit"}
    _affixes: ClassVar[dict[str, tuple[str, str]]] = {"mean": ("", "")}

    model: str
    method: str
    k: int
    seed: int
    key: str = ""
    incompatibility: str = ""
    support: tuple[str, ...] = ()
    trained_parameters: int = 0
    adapter_bytes: int = 0
    seconds: float = 0.0
    mean: dict[str, float | None] = Field(default={})
    scores: dict[str, dict[str, dict[str, float | None]]] = Field(default={})
    warnings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name in messages."""
        return f"{self.model}, {self.method}, k = {self.k}, seed {self.seed}"

    @classmethod
    def _upgrade(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Reads `cases`, which held the Dice by case and structure before there was a choice."""
        data = dict(data)
        cases = data.pop("cases", {})
        if "scores" not in data:
            data["scores"] = {
                case: {structure: {"dice": dice} for structure, dice in values.items()}
                for case, values in cases.items()
            }
        return data

    @model_serializer(mode="wrap")
    def _flatten(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Writes the first metric by case and structure as `cases`, as the first release did."""
        data = self._to_file_keys(handler(self))
        metric = next(iter(self.mean), "")
        cases: dict[str, dict[str, float | None]] = {}
        for case, structures in self.scores.items():
            cases[case] = {name: values.get(metric) for name, values in structures.items()}
        return {**data, "cases": cases}


class Row(MetricFields):
    """A model and a method with one k: means over seeds.

    Attributes:
        model: Name of the model.
        method: Name of the method.
        k: Number of training cases.
        incompatibility: Why model and method cannot be combined; empty if they can.
        trained_parameters: Number of trained parameters, with the first seed.
        adapter_bytes: Size of the adapter file, with the first seed.
        seconds: Training time.
        mean: Mean of each metric over seeds.
        std: Sample standard deviation of each metric over seeds.
        difference: First metric minus that of the baseline, or of the best row with the same k.
    """

    _file_keys: ClassVar[dict[str, str]] = {"incompatibility": "misfit"}
    _affixes: ClassVar[dict[str, tuple[str, str]]] = {"std": ("", "_std"), "mean": ("", "")}

    model: str
    method: str
    k: int
    incompatibility: str = ""
    trained_parameters: int = 0
    adapter_bytes: int = 0
    seconds: float = 0.0
    mean: dict[str, float | None] = Field(default={})
    std: dict[str, float | None] = Field(default={})
    difference: Difference | None = None


class Benchmark(MetricFields, Document):
    """Configuration and results of a benchmark.

    Attributes:
        dataset: Name of the dataset.
        models: Names of the foundation models.
        structures: Structures that were scored.
        test: Test cases.
        pool: Cases that training cases were drawn from.
        seeds: Random seeds.
        metrics: Metrics; rows are compared by the first.
        tolerance_mm: Surface deviation that tolerance-based metrics accepted.
        settings: Settings of the methods, as `key=value` or `method.key=value`.
        minutes: Time budget of each training.
        baseline: Method that the others are compared with; empty: the best row of each k.
        versions: Versions of packages by name.
        rows: Results of each model, method and k that ran with every seed.
        trials: Results of each adaptation.
        failed: Message of each failed trial, by its name.
    """

    _file_keys: ClassVar[dict[str, str]] = {"baseline": "against"}

    dataset: str
    models: tuple[str, ...]
    structures: tuple[str, ...]
    test: tuple[str, ...]
    pool: tuple[str, ...]
    seeds: tuple[int, ...]
    metrics: tuple[MetricColumn, ...] = ()
    tolerance_mm: float
    settings: tuple[str, ...]
    minutes: float | None
    baseline: str = ""
    versions: dict[str, str]
    rows: tuple[Row, ...] = ()
    trials: tuple[Trial, ...] = ()
    failed: dict[str, str] = Field(default={})


def aggregate_trials(
    trials: Sequence[Trial], seeds: Sequence[int], metric: MetricColumn, baseline: str = ""
) -> tuple[Row, ...]:
    """Averages the trials of each model, method and k over the seeds, and compares the rows.

    Args:
        trials: Finished trials.
        seeds: Seeds of the benchmark; a row that lacks one is left out.
        metric: Metric to compare by.
        baseline: Method to compare with, of the same model; empty: the best row with the same k.

    Returns:
        One row for each model, method and k, in the order of the trials.
    """
    groups: dict[RowKey, list[Trial]] = {}
    for trial in trials:
        groups.setdefault((trial.model, trial.method, trial.k), []).append(trial)
    complete = {
        place: group
        for place, group in groups.items()
        if {trial.seed for trial in group} == set(seeds)
    }
    rows = {place: _average(group) for place, group in complete.items()}
    for place, other in _comparisons(rows, metric, baseline):
        scores, baseline_scores = _score_arrays(metric.key, complete[place], complete[other])
        difference = paired_difference(scores, baseline_scores)
        rows[place] = rows[place].model_copy(update={"difference": difference})
    return tuple(rows.values())


def _comparisons(
    rows: dict[RowKey, Row], metric: MetricColumn, baseline: str
) -> list[tuple[RowKey, RowKey]]:
    """Returns each row to compare, with the row that it is compared with."""
    ranks: dict[RowKey, float] = {}
    for place, row in rows.items():
        value = row.mean.get(metric.key)
        if value is not None:
            ranks[place] = metric.rank(value)
    pairs = []
    for place in ranks:
        model, _, k = place
        same_k = [other for other in ranks if other[2] == k]
        other = (model, baseline, k) if baseline else max(same_k, key=ranks.__getitem__)
        if other in ranks and other != place:
            pairs.append((place, other))
    return pairs


def _average(trials: Sequence[Trial]) -> Row:
    first = trials[0]
    keys = dict.fromkeys(key for trial in trials for key in trial.mean)
    values = {key: [trial.mean.get(key) for trial in trials] for key in keys}
    return Row(
        model=first.model,
        method=first.method,
        k=first.k,
        incompatibility=first.incompatibility,
        trained_parameters=first.trained_parameters,
        adapter_bytes=first.adapter_bytes,
        seconds=sum(trial.seconds for trial in trials) / len(trials),
        mean={key: mean(column) for key, column in values.items()},
        std={key: standard_deviation(column) for key, column in values.items()},
    )


def _score_arrays(key: str, *groups: Sequence[Trial]) -> list[NDArray[np.float64]]:
    """Returns the values of a metric for each group of trials.

    Returns:
        Arrays of shape (seeds, cases, structures) with the same cases and structures in all; NaN
        where a value is undefined.
    """
    trials = [trial for group in groups for trial in group]
    cases = _sorted_names(trial.scores for trial in trials)
    structures = _sorted_names(scores for trial in trials for scores in trial.scores.values())
    arrays = []
    for group in groups:
        values = np.full((len(group), len(cases), len(structures)), np.nan)
        for index in np.ndindex(values.shape):
            seed, case, structure = index
            by_structure = group[seed].scores.get(cases[case], {})
            value = by_structure.get(structures[structure], {}).get(key)
            values[index] = np.nan if value is None else value
        arrays.append(values)
    return arrays


def _sorted_names(mappings: Iterable[dict[str, Any]]) -> list[str]:
    names: set[str] = set()
    for mapping in mappings:
        names.update(mapping)
    return sorted(names)
