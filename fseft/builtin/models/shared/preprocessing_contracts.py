"""Preprocessing contracts that several public models share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.schemas import Contract, Intensity

if TYPE_CHECKING:
    from fseft.schemas import Millimetres


def abdomen_ct(
    *,
    low: float = -175,
    high: float = 250,
    spacing_mm: Millimetres = (1.5, 1.5, 1.5),
    side: int = 96,
) -> Contract:
    """Returns the contract of MONAI's abdominal models: CT in RAS, scaled to [0, 1], cubic patches.

    Their scans are resampled by `Spacingd(mode="bilinear")`, then scaled, then padded with 0.

    Args:
        low: Lower bound of the intensity window, in HU.
        high: Upper bound of the intensity window, in HU.
        spacing_mm: Voxel spacing along right, anterior, superior, in mm.
        side: Side of the patch, in voxels.
    """
    return Contract(
        orientation="RAS",
        spacing_mm=spacing_mm,
        intensity={"ct": Intensity(scheme="window", low=low, high=high)},
        patch_size=(side, side, side),
        interpolation="linear",
        alignment="first-voxel",
        padding="zero",
    )
