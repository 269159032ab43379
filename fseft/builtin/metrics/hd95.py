"""95th percentile of the Hausdorff distance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.plugin import MetricSpec

if TYPE_CHECKING:
    from fseft.metrics.masks import MaskPair

SPEC = MetricSpec(
    name="hd95",
    title="HD95",
    unit="mm",
    direction="lower",
    missing="image-diagonal",
    digits=1,
    factory="fseft.builtin.metrics.hd95:hausdorff_distance_95",
    summary="larger of both directed 95th percentiles of the distances between surface voxels",
)


def hausdorff_distance_95(masks: MaskPair) -> float:
    """Returns the larger of the two directed 95th percentiles of the surface distances, in mm."""
    import numpy as np

    return max(float(np.percentile(distances, 95)) for distances in masks.surface_distances_mm)
