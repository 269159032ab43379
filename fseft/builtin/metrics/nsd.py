"""Normalised surface Dice."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from fseft.lazy_imports import import_lazily
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


def normalised_surface_dice(masks: MaskPair) -> float:
    """Returns the fraction of both surfaces within the tolerance of the other one, in [0, 1].

    Surface elements have sub-voxel positions and are weighted by their area (Nikolov et al. 2021).
    Computed by MONAI.
    """
    import torch

    import_lazily("monai")
    from monai.metrics import compute_surface_dice

    tensors = [torch.from_numpy(mask[None, None]) for mask in (masks.prediction, masks.reference)]
    with warnings.catch_warnings():
        # MONAI 1.5 and 1.6 warn about an argument that they pass to themselves.
        warnings.filterwarnings("ignore", ".*get_mask_edges:always_return_as_numpy", FutureWarning)
        value = compute_surface_dice(
            *tensors,
            [masks.tolerance_mm],
            include_background=True,
            spacing=masks.spacing_mm,
            use_subvoxels=True,
        )
    return float(value)
