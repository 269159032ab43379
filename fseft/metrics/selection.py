"""Resolves the names of metrics."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from fseft.errors import FseftError
from fseft.plugin import MetricSpec
from fseft.registry import registry

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fseft.schemas import Provenance

DEFAULT_METRICS = ("dice", "nsd", "hd95", "volume_difference")
"""Metrics of `fseft evaluate` where none are chosen."""

DEFAULT_BENCHMARK_METRICS = ("dice", "nsd", "hd95")
"""Metrics of `fseft benchmark` where none are chosen; methods are compared by the first."""

_RESERVED_KEYS = frozenset(
    {
        *("state", "volume_ml", "reference_ml", "cases", "missed", "false_positive", "both_empty"),
        *("model", "method", "k", "seed", "key", "misfit", "support", "seconds", "warnings"),
        *("metrics", "mean", "std", "scores", "difference"),
    }
)
"""Keys that scores and trials have in files next to their metrics."""


def select_metrics(names: Iterable[str] = DEFAULT_METRICS) -> tuple[MetricSpec, ...]:
    """Returns the metrics of these names, each once, in the same order.

    Args:
        names: Names in the registry, such as `dice`.

    Raises:
        FseftError: A name is unknown, no name is given, or two metrics share their key in files.
        PluginError: The function of a metric cannot be imported.

    Examples:
        >>> [metric.key for metric in select_metrics(["dice", "hd95"])]
        ['dice', 'hd95_mm']
    """
    metrics = tuple(_load(name) for name in dict.fromkeys(names))
    if not metrics:
        raise FseftError("no metric is chosen", hint=_known_names())
    for key, count in Counter(metric.key for metric in metrics).items():
        if count > 1 or key in _RESERVED_KEYS or key.endswith("_std"):
            raise FseftError(
                f"the metric key {key!r} is already in use", hint="Rename the metric, or its unit."
            )
    return metrics


def metric_provenance(metrics: Iterable[MetricSpec]) -> tuple[Provenance, ...]:
    """Returns the packages and versions that metrics come from."""
    return tuple(registry().provenance_of("metric", metric) for metric in metrics)


def _load(name: str) -> MetricSpec:
    """Looks up a metric, and imports its function so that a broken plugin fails at once."""
    registry().factory("metric", name)
    spec = registry().resolve("metric", name).spec
    assert isinstance(spec, MetricSpec)  # noqa: S101 - the registry checks the type
    return spec


def _known_names() -> str:
    return f"Known: {', '.join(registry().names('metric'))}."
