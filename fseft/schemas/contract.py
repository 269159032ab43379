"""The input that a network expects: grid and intensities of the scans."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from fseft.schemas.base import FrozenModel, Millimetres, Modality, Range, Triple


def _optional() -> Any:
    """Returns a field that is None by default and is not written then.

    Documents without it, and digests of them, remain as earlier versions made them.
    """
    return Field(default=None, exclude_if=lambda value: value is None)


class Intensity(FrozenModel):
    """Normalisation of the intensities of one channel.

    Attributes:
        scheme: `window` clips to [low, high] and maps to [0, 1]; `clip-zscore` clips to [low,
            high], subtracts `mean` and divides by `std` (nnU-Net's rule for CT); `zscore` uses mean
            and standard deviation of each case; `minmax` maps the extremes of each case to -1 and
            1.
        low: Lower limit, in stored units.
        high: Upper limit, in stored units.
        mean: Mean of the foreground of the dataset.
        std: Standard deviation of the foreground of the dataset.
    """

    scheme: Literal["window", "clip-zscore", "zscore", "minmax"]
    low: float | None = None
    high: float | None = None
    mean: float | None = None
    std: float | None = None

    def describe(self) -> str:
        """Returns the scheme in a few words."""
        if self.scheme == "zscore":
            return "z-score per case"
        if self.scheme == "minmax":
            return "each case's extremes to [-1, 1]"
        clip = f"clip to [{self.low:g}, {self.high:g}]"
        return f"{clip}, scale to [0, 1]" if self.scheme == "window" else f"{clip}, z-score"


class Contract(FrozenModel):
    """Preprocessing contract: the input that a foundation model expects.

    What is left at None or {} is decided by the fingerprint of the dataset. Spacing and patch size
    are along the axes of `orientation`, a three-letter code.

    Attributes:
        spacing_range_mm: Range of the voxel sides seen in training, where `spacing_mm` is None.
        structure_range_voxels: Range of the sizes of structures seen in training: the cube root of
            their volume, in voxels of the network's grid.
    """

    orientation: str = "RAS"
    spacing_mm: Millimetres | None = None
    intensity: dict[Modality, Intensity] = {}
    channels: int = 1
    patch_size: Triple | None = None
    spacing_range_mm: Range | None = _optional()
    structure_range_voxels: Range | None = _optional()


class Preprocessing(FrozenModel):
    """Complete preprocessing of scans for a network; stored in the plan and in the adapter.

    Spacing and patch size are along the axes of `orientation`; `intensity` has one entry per
    channel.
    """

    orientation: str
    spacing_mm: Millimetres
    modality: Modality
    intensity: tuple[Intensity, ...]
    patch_size: Triple
