"""Averages symmetric surface distance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.plugin import MetricSpec

if TYPE_CHECKING:
    from fseft.metrics.masks import MaskPair

SPEC = MetricSpec(
    name="assd",
    title="ASSD",
    unit="mm",
    direction="lower",
    missing="image-diagonal",
    digits=2,
    factory="fseft.builtin.metrics.assd:average_symmetric_surface_distance",
    summary="average symmetric surface distance: mean over the surface voxels of both masks",
)


def average_symmetric_surface_distance(masks: MaskPair) -> float:
    """Returns the mean distance of the surface voxels of both masks to the other surface, in mm."""
    import numpy as np

    return float(np.concatenate(masks.surface_distances_mm).mean(dtype=np.float64))
