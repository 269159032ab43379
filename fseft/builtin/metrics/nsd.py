"""Normalised surface Dice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.plugin import MetricSpec

if TYPE_CHECKING:
    from fseft.metrics.masks import MaskPair

SPEC = MetricSpec(
    name="nsd",
    title="NSD",
    direction="higher",
    missing=0.0,
    note="within {tolerance_mm:g} mm",
    factory="fseft.builtin.metrics.nsd:normalised_surface_dice",
    summary="normalised surface Dice: fraction of both surfaces within the tolerance of the other",
    reference="https://arxiv.org/abs/1809.04430",
)


_ROUNDING_MM = 1e-6  # a distance equal to the tolerance is accepted


def normalised_surface_dice(masks: MaskPair) -> float:
    """Returns the fraction of both surfaces within the tolerance of the other one, in [0, 1].

    Surface elements have sub-voxel positions and are weighted by their area (Nikolov et al. 2021).
    """
    from fseft.metrics.surfaces import nearest_distances, surface_elements

    limit = masks.tolerance_mm + _ROUNDING_MM
    points, areas = surface_elements(masks.prediction, masks.spacing_mm)
    others, other_areas = surface_elements(masks.reference, masks.spacing_mm)
    accepted = areas[nearest_distances(points, others, limit) <= limit].sum()
    accepted += other_areas[nearest_distances(others, points, limit) <= limit].sum()
    return float(accepted / (areas.sum() + other_areas.sum()))
