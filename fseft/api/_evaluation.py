"""Scores predictions."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from fseft.api._resolve import as_selection

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fseft.evaluation.matching import MatchedCases
    from fseft.evaluation.run import Evaluation
    from fseft.experiment.callbacks import Callbacks
    from fseft.parallel import Workers

logger = logging.getLogger(__name__)


def evaluate(
    predictions: str | Path,
    labels: str | Path,
    *,
    metrics: Sequence[str] | None = None,
    structures: Sequence[str] | None = None,
    label_values: Mapping[str, int] | None = None,
    ignore_label: int | None = None,
    annotated_slices: str = "all",
    missing_label: str | None = None,
    tolerance_mm: float = 2.0,
    include_training: bool = False,
    output: str | Path | None = None,
    workers: Workers | None = None,
    callbacks: Callbacks | None = None,
) -> Evaluation:
    """Scores predicted label maps against reference labels, on the grid of the images.

    Args:
        predictions: Folder of predicted label maps, or one file.
        labels: Folder of reference label maps, or one file.
        metrics: Names of metrics; None for Dice, NSD, HD95 and volume difference.
        structures: Names of the structures to score; None for all.
        label_values: Structure -> value in the labels; None for what their `dataset.json` says.
        ignore_label: Value of voxels in the labels that are not scored; None for what their
            `dataset.json` says.
        annotated_slices: "auto" does not score slices without any label, in cases that are drawn in
            single slices; "all" counts them as background.
        missing_label: Meaning of a structure that a label map does not contain: "absent", or
            "unannotated", which does not score it in this case; None for the rule that the adapters
            were trained with. Where the dataset of the labels lists what a case annotates, the list
            decides.
        tolerance_mm: Surface deviation that the normalised surface Dice accepts.
        include_training: Also score cases that the adapter was trained on.
        output: Folder for `metrics.json` and `metrics.csv`; None to write no file.
        workers: Processes, or the address of a dask scheduler; None for a number that suits the
            cases.
        callbacks: Observe the progress.

    Returns:
        The scores: `mean` of each metric, `classes` by structure, `cases` by case and structure.

    Raises:
        FseftError: No case or structure in common, a damaged file, or different grids. All other
            cases are scored first.

    Examples:
        >>> scores = evaluate("segmented", "livers/labelsTs")  # doctest: +SKIP
        >>> scores.mean["dice"]  # doctest: +SKIP
        0.93
    """
    from fseft.evaluation import run
    from fseft.evaluation.matching import match_files
    from fseft.metrics.selection import DEFAULT_METRICS, select_metrics
    from fseft.workspace import require_folder

    if output is not None:
        require_folder(Path(output))
    selected = select_metrics(as_selection("metrics", metrics) or DEFAULT_METRICS)
    matched = match_files(
        Path(predictions),
        Path(labels),
        values=dict(label_values or {}),
        ignore_label=ignore_label,
        annotated_slices=annotated_slices,
        missing_label=missing_label,
    )
    for message in _assumptions(matched, missing_label):
        logger.warning("%s", message)
    result = run.evaluate(
        matched,
        metrics=selected,
        tolerance_mm=tolerance_mm,
        structures=as_selection("structures", structures),
        include_training=include_training,
        workers=workers,
        callbacks=callbacks,
    )
    if output is not None:
        run.write_evaluation(result, Path(output))
    return result


def _assumptions(matched: MatchedCases, missing_label: str | None) -> Iterator[str]:
    """Yields warnings about assumptions that the scores depend on."""
    values = matched.prediction_labels or {}
    named = [f"{value} = {name}" for name, value in values.items() if name != f"class_{value}"]
    if matched.reference_labels is None and named:
        yield (
            "no dataset.json describes the values in the labels: assumed as in the predictions "
            f"({', '.join(named)}). If that is wrong, pass the label values"
        )
    if missing_label is None and matched.missing_label == "unannotated":
        yield (
            "a structure that a label map does not contain is not scored in it, as the adapter was "
            "trained so; set `missing_label` to absent to score it"
        )
    if matched.mixed_adapters:
        paths = ", ".join(matched.adapters.values())
        yield f"the cases were predicted by different adapters: {paths}"
