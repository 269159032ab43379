"""The augmentation `inverted_gamma`: a power of the inverted intensities."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.builtin.augmentations.gamma import Gamma
from fseft.plugin import AugmentationSpec

if TYPE_CHECKING:
    from fseft.learn.sampling.augmentation import Array


class InvertedGamma(Gamma):
    """As `Gamma`, of the negative image: changes the contrast of bright instead of dark parts."""

    def apply(self, exponent: float, image: Array, label: Array) -> tuple[Array, Array]:
        """Returns the transformed image (C, i, j, k), all channels by one rule, and the label."""
        negative, label = super().apply(exponent, -image, label)
        return -negative, label


SPEC = AugmentationSpec(
    name="inverted_gamma",
    factory="fseft.builtin.augmentations.inverted_gamma:InvertedGamma",
    summary="a power of 0.7 to 1.5 of the inverted intensities; not in the default set",
    reference="Isensee et al. 2021, Nature Methods 18:203-211 (nnU-Net)",
    probability=0.1,
)
