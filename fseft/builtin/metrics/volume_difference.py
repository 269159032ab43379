"""Signed volume difference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.plugin import MetricSpec

if TYPE_CHECKING:
    from fseft.metrics.masks import MaskPair

SPEC = MetricSpec(
    name="volume_difference",
    title="ΔV",
    unit="ml",
    direction="zero",
    missing="computed",
    digits=1,
    note="in ml: prediction minus reference",
    factory="fseft.builtin.metrics.volume_difference:volume_difference",
    summary="volume of the prediction minus volume of the reference",
)


def volume_difference(masks: MaskPair) -> float:
    """Returns the volume of the predicted mask (i, j, k) minus that of the reference, in ml."""
    return masks.prediction_ml - masks.reference_ml
