"""Preprocessing that several public models were trained with."""

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
    """CT in RAS, a window in HU scaled to [0, 1], cubic patches: the recipe of MONAI's abdominal models."""
    return Contract(
        orientation="RAS",
        spacing_mm=spacing_mm,
        intensity={"ct": Intensity(scheme="window", low=low, high=high)},
        patch_size=(side, side, side),
    )
