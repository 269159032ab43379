"""Scores the structures of one case."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from fseft.errors import FseftError
from fseft.metrics.masks import MaskPair
from fseft.metrics.scores import State, StructureScore
from fseft.registry import import_object
from fseft.volume.label_values import label_boxes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from fseft.plugin import MetricSpec

    Labels = NDArray[np.integer[Any]]


def score_case(
    prediction: Labels,
    reference: Labels,
    ids: Mapping[str, int | tuple[int, ...]],
    spacing_mm: Sequence[float],
    tolerance_mm: float = 2.0,
    *,
    metrics: Sequence[MetricSpec],
) -> dict[str, StructureScore]:
    """Scores the structures of one case; `StructureScore` states the rule for absent structures.

    Args:
        prediction: Label map of shape (i, j, k) on the grid of the original image.
        reference: Label map of the same shape.
        ids: Label value, above 0, of each structure to score, or all values of a region. Only
            annotated structures: a value without voxels in `reference` counts as an absent
            structure.
        spacing_mm: Voxel size along i, j, k.
        tolerance_mm: Surface deviation that tolerance-based metrics accept.
        metrics: Metrics to compute; see `fseft.metrics.selection.select_metrics`.

    Returns:
        The score of each structure, in the order of `ids`.

    Raises:
        FseftError: The shapes differ, a label is below 1, or spacing or tolerance is not valid.
    """
    parts = {name: (part,) if isinstance(part, int) else part for name, part in ids.items()}
    _check(prediction, reference, parts, spacing_mm, tolerance_mm)
    i, j, k = (float(step) for step in spacing_mm)
    boxes = [label_boxes(labels) for labels in (prediction, reference)]
    scores = {}
    for name, values in parts.items():
        box = _joint_box(side.get(value) for side in boxes for value in values)
        masks = MaskPair(
            # A margin of background closes the surface of a structure at the image border.
            np.pad(np.isin(prediction[box], values), 1),
            np.pad(np.isin(reference[box], values), 1),
            spacing_mm=(i, j, k),
            image_shape=prediction.shape,
            tolerance_mm=float(tolerance_mm),
        )
        scores[name] = score_structure(masks, metrics)
    return scores


def score_structure(masks: MaskPair, metrics: Sequence[MetricSpec]) -> StructureScore:
    """Computes the metrics of one structure from its masks (i, j, k).

    Args:
        masks: Its masks in prediction and reference.
        metrics: Metrics to compute.
    """
    state = _state(masks)
    return StructureScore(
        metrics={metric.key: _value(metric, masks, state) for metric in metrics},
        volume_ml=masks.prediction_ml,
        reference_ml=masks.reference_ml,
        state=state,
    )


def _value(metric: MetricSpec, masks: MaskPair, state: State) -> float | None:
    """Returns the value of a metric, by its rules where a structure is absent."""
    if state == "both-empty":
        return metric.both_empty
    if state == "both-present" or metric.missing == "computed":
        function = import_object(metric.factory)
        value = function(masks)
        if value is None or not math.isfinite(value):
            return None
        return float(value)
    if metric.missing == "image-diagonal":
        return masks.image_diagonal_mm
    return metric.missing


def _state(masks: MaskPair) -> State:
    if masks.prediction_voxels and masks.reference_voxels:
        return "both-present"
    if masks.reference_voxels:
        return "missed"
    return "false-positive" if masks.prediction_voxels else "both-empty"


def _check(
    prediction: Labels,
    reference: Labels,
    parts: Mapping[str, tuple[int, ...]],
    spacing_mm: Sequence[float],
    tolerance_mm: float,
) -> None:
    if prediction.shape != reference.shape or prediction.ndim != 3:
        raise FseftError(
            f"prediction of shape {prediction.shape}, but reference of shape {reference.shape}",
            hint="Bring both to the grid (i, j, k) of the original image.",
        )
    steps = tuple(spacing_mm)
    if len(steps) != 3 or not all(0 < step < math.inf for step in steps):
        raise FseftError(f"spacing {steps} mm", hint="Give three lengths above 0.")
    if not 0 <= tolerance_mm < math.inf:
        raise FseftError(f"tolerance of {tolerance_mm} mm", hint="Give a length of 0 or more.")
    for name, values in parts.items():
        if min(values) < 1:
            message = f"structure {name} has the label {min(values)}"
            raise FseftError(message, hint="Score only labels above 0.")


def _joint_box(boxes: Iterable[tuple[slice, ...] | None]) -> tuple[slice, ...]:
    """Returns the bounding box of all boxes; an empty box if all are None."""
    filled = [box for box in boxes if box is not None]
    if not filled:
        return (slice(0),) * 3
    return tuple(
        slice(
            min(side.start for side in axis),
            max(side.stop for side in axis),
        )
        for axis in zip(*filled, strict=True)
    )
