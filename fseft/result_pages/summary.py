"""Results in plain words, and the key figures at the top of a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.errors import pluralise
from fseft.reporting.page import Highlight

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fseft.benchmarking.results import Benchmark, Row
    from fseft.evaluation.run import Evaluation
    from fseft.metrics.fields import MetricColumn
    from fseft.result_pages.cases import PredictedCases
    from fseft.schemas import Manifest

_DICE = " (1: the same voxels as the reference, 0: none in common)"
_UNSCORED = (
    "There are no references to compare with: nothing here says how right the segmentations are. "
    "Look at the pictures."
)
_NO_SCORE = (
    "Nothing here says how well new scans are segmented. `fseft adapt --cross-validate` estimates "
    "it from the training cases. With labels of other cases, run `fseft predict` and `fseft "
    "evaluate`, and make a report of the predictions."
)


def score_highlights(predicted: PredictedCases) -> tuple[Highlight, ...]:
    """Returns the means of the first metrics, and the number of scans."""
    scans = Highlight("scans", str(len(predicted.cases)))
    evaluation = predicted.evaluation
    if evaluation is None:
        return (scans,)
    means = [
        Highlight(f"mean {metric.title}", metric.text(evaluation.mean), metric.unit)
        for metric in evaluation.metrics[:3]
    ]
    return (*means, Highlight("scored", str(len(evaluation.cases))), scans)


def describe_predictions(predicted: PredictedCases) -> str:
    """Describes predictions and their scores, with the meaning of the metric."""
    scans = pluralise(len(predicted.cases), "scan")
    structures = pluralise(len(predicted.cases[0].labels), "structure")
    paragraphs = [f"{scans}, {structures}."]
    evaluation = predicted.evaluation
    if evaluation and predicted.ranked():
        paragraphs.append(" ".join(_describe_scores(predicted, evaluation)))
    else:
        paragraphs.append(_UNSCORED)
    if seen := [case.name for case in predicted.cases if case.seen]:
        paragraphs.append(
            f"The adapter was trained on {', '.join(seen)}: how well these were segmented says "
            "nothing about new scans."
        )
    return "\n\n".join(paragraphs)


def _describe_scores(predicted: PredictedCases, evaluation: Evaluation) -> Iterator[str]:
    metric, ranked = evaluation.metrics[0], predicted.ranked()
    explained = _DICE if metric.key == "dice" else ""
    mean = metric.text(evaluation.mean)
    yield f"Compared with a reference: {pluralise(len(ranked), 'scan')}."
    yield f"The mean {metric.title}{explained} is {mean}."
    means = {name: summary.mean.get(metric.key) for name, summary in evaluation.classes.items()}
    by_rank = _sorted(means, metric)
    if len(by_rank) > 1:
        worst, best = by_rank[0], by_rank[-1]
        yield (
            f"The best structure is {best} ({metric.text({metric.key: means[best]})}), the worst "
            f"{worst} ({metric.text({metric.key: means[worst]})})."
        )
    value = metric.text({metric.key: ranked[0].mean(metric)})
    yield f"By the mean of its structures, the worst scan is {ranked[0].name} ({value})."


def _sorted(values: Mapping[str, float | None], metric: MetricColumn) -> list[str]:
    """Returns the names with a value, the worst first."""
    ranks = {}
    for name, value in values.items():
        if value is not None:
            ranks[name] = metric.rank(value)
    return sorted(ranks, key=ranks.__getitem__)


def expected_dice(manifest: Manifest) -> tuple[Highlight, ...]:
    """Returns the Dice of the cross-validation, if there was one."""
    if manifest.cross_validation is None:
        return ()
    dice = manifest.cross_validation.mean
    interval = f"{dice.low:.3f} to {dice.high:.3f} in cases like these"
    return (Highlight("cross-validated Dice", f"{dice.mean:.3f}", interval),)


def describe_run(manifest: Manifest) -> str:
    """Describes an adaptation, and what can be expected of it."""
    text = (
        f"The method {manifest.method.name} adapted the model {manifest.model} to "
        f"{pluralise(len(manifest.labels), 'structure')}, with "
        f"{pluralise(len(manifest.support), 'labelled case')}."
    )
    score, result = _NO_SCORE, manifest.cross_validation
    if result:
        lowest = min(result.expected, key=lambda name: result.expected[name].mean)
        score = (
            f"In cases like these, a mean Dice{_DICE} of about {result.mean.mean:.3f} is expected; "
            f"the lowest is that of {lowest}, {result.expected[lowest].mean:.3f}."
        )
    return f"{text}\n\n{score}"


def describe_benchmark(benchmark: Benchmark, best: Row, name: str) -> str:
    """Describes the best row of a benchmark.

    Args:
        benchmark: The benchmark.
        best: Its best row.
        name: Name of the trial whose cases are shown.
    """
    metric, rows = benchmark.metrics[0], pluralise(len(benchmark.rows), "combination")
    return (
        f"{rows} of model, method and number of training cases k, scored on "
        f"{pluralise(len(benchmark.test), 'unseen case')}. The best mean {metric.title} is "
        f"{metric.text(best.mean)}.\n\nThe scans below were segmented by {name}."
    )


def benchmark_highlights(benchmark: Benchmark, best: Row, name: str) -> tuple[Highlight, ...]:
    """Returns the best score, and the numbers of cases and seeds.

    Args:
        benchmark: The benchmark.
        best: Its best row.
        name: Name of that row.
    """
    metric = benchmark.metrics[0]
    return (
        Highlight(f"best {metric.title}", metric.text(best.mean), name),
        Highlight("unseen cases", str(len(benchmark.test))),
        Highlight("seeds", str(len(benchmark.seeds))),
    )
