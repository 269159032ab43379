"""The model card of an exported network, in Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.escaping import escape_markdown
from fseft.planning.rules import show_sides

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from fseft.metrics.fields import MetricColumn
    from fseft.metrics.scores import Scores
    from fseft.schemas import Manifest, Preprocessing

_INTENDED_USE = """\
Research. It is not a medical device, and it was not validated for clinical decisions.
A person who knows the anatomy must check every segmentation."""

_LIMITS = """\
- It suits scans like those it was trained on: scanners, protocols, body regions and diseases that
  are missing there may fail without a sign.
- It segments the structures above and nothing else; a structure that is cut by the edge of a scan
  may be missed.
- Scores on the training cases say nothing about new scans."""


def model_card(manifest: Manifest, scores: Scores | None = None, *, format_name: str = "") -> str:
    """Describes data, licence, scores, intended use and limits of an adapted network.

    Args:
        manifest: Manifest of the adapter.
        scores: Scores by `fseft evaluate`; None if the network was not evaluated.
        format_name: Name of the exporter.

    Returns:
        Markdown.
    """
    title = f"{', '.join(manifest.labels)}: {manifest.method.name} on {manifest.model}"
    sections = (
        ("Intended use", [_INTENDED_USE]),
        ("Structures", _structures(manifest)),
        ("Input", _input(manifest)),
        ("Training", _training(manifest)),
        ("Scores", _scores(scores, manifest)),
        ("Limits", [_LIMITS]),
        ("Licence", [_licence(manifest)]),
        ("Versions", _versions(manifest, format_name)),
    )
    lines = [f"# {escape_markdown(title)}"]
    for heading, content in sections:
        lines += ["", f"## {heading}", "", *content]
    return "\n".join(lines) + "\n"


def _structures(manifest: Manifest) -> Iterator[str]:
    yield from _table(
        ("structure", "output channel", "label value"),
        [
            (name, channel, value)
            for channel, (name, value) in enumerate(manifest.labels.items(), start=1)
        ],
    )
    yield ""
    yield "Channel 0 is the background. The label of a voxel is the channel with the largest logit."


def _input(manifest: Manifest) -> list[str]:
    preprocessing: Preprocessing = manifest.preprocessing
    facts = {
        "modality": preprocessing.modality.upper(),
        "channels": ", ".join(manifest.channels),
        "orientation of the axes": preprocessing.orientation,
        "voxel spacing": f"{show_sides(preprocessing.spacing_mm)} mm",
        "intensity": "; ".join(scheme.describe() for scheme in preprocessing.intensity),
        "patch": f"{show_sides(preprocessing.patch_size)} voxels",
    }
    return [f"- {name}: {escape_markdown(value)}" for name, value in facts.items()]


def _training(manifest: Manifest) -> list[str]:
    facts = {
        "foundation model": f"{manifest.model} ({manifest.architecture})",
        "method": f"{manifest.method.name} ({manifest.method.distribution} "
        f"{manifest.method.version}), {manifest.trained_parameters:,} trained parameters",
        "dataset": manifest.dataset,
        "labelled cases": f"{len(manifest.support)}: {', '.join(manifest.support)}",
    }
    return [f"- {name}: {escape_markdown(value)}" for name, value in facts.items()]


def _scores(scores: Scores | None, manifest: Manifest) -> Iterator[str]:
    if scores is None:
        yield "Not evaluated: no score on cases outside of the training is known."
        return
    trained_on = len(scores.cases.keys() & set(manifest.support))
    origin = f"{trained_on} of them used for training" if trained_on else "none used for training"
    yield f"On {len(scores.cases)} cases, {origin}; 95 % intervals where there are six or more."
    yield ""
    columns = [f"{metric.title} {metric.unit}".strip() for metric in scores.metrics]
    rows = [
        (name, str(summary.cases), *(_interval(scores, name, metric) for metric in scores.metrics))
        for name, summary in scores.classes.items()
    ]
    yield from _table(("structure", "cases", *columns), rows)


def _interval(scores: Scores, structure: str, metric: MetricColumn) -> str:
    """Returns mean and bootstrap interval over cases, as in `0.912 (0.87 to 0.94)`."""
    import numpy as np

    from fseft.metrics.statistics import paired_difference

    values = [
        case[structure].metrics.get(metric.key)
        for case in scores.cases.values()
        if structure in case
    ]
    array = np.array([np.nan if value is None else value for value in values])[None, :, None]
    estimate = paired_difference(array, np.zeros_like(array))
    if estimate is None:
        return "–"
    mean = f"{estimate.mean:.{metric.digits}f}"
    if estimate.low is None or estimate.high is None:
        return mean
    return f"{mean} ({estimate.low:.{metric.digits}f} to {estimate.high:.{metric.digits}f})"


def _licence(manifest: Manifest) -> str:
    inherited = manifest.licence or "not stated"
    return (
        f"The foundation model {escape_markdown(manifest.model)} has the licence: "
        f"{escape_markdown(inherited)}. "
        "The network contains its weights, so the licence applies to it."
    )


def _versions(manifest: Manifest, format_name: str) -> list[str]:
    facts = {**manifest.versions, "weights of the foundation model": manifest.backbone_sha256}
    if format_name:
        facts["exported as"] = format_name
    return [f"- {name}: {value}" for name, value in facts.items() if value]


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    yield _row(columns)
    yield _row(["---"] * len(columns))
    for row in rows:
        yield _row([escape_markdown(str(cell)) for cell in row])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
