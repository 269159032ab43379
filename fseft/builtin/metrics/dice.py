"""Dice similarity coefficient."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.plugin import MetricSpec

if TYPE_CHECKING:
    from fseft.metrics.masks import MaskPair

SPEC = MetricSpec(
    name="dice",
    title="Dice",
    direction="higher",
    missing=0.0,
    factory="fseft.builtin.metrics.dice:dice",
    summary="Dice similarity coefficient, 2|A∩B| / (|A| + |B|)",
)


def dice(masks: MaskPair) -> float:
    """Returns 2|A∩B| / (|A| + |B|), in [0, 1], of two masks (i, j, k)."""
    overlap = int((masks.prediction & masks.reference).sum())
    voxels = masks.prediction_voxels + masks.reference_voxels
    return 2 * overlap / voxels
