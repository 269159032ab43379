"""The augmentation `shift`: a constant added to the intensities, the only one of the FSEFT code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.plugin import AugmentationSpec

if TYPE_CHECKING:
    from numpy.random import Generator

    from fseft.learn.sampling.augmentation import Array

MAX_SHIFT = 0.1


class Shift:
    """A constant added to all channels."""

    def draw(self, generator: Generator, shape: tuple[int, ...]) -> float:  # noqa: ARG002
        """Draws the constant, in normalised intensities."""
        return generator.uniform(-MAX_SHIFT, MAX_SHIFT)

    def apply(self, shift: float, image: Array, label: Array) -> tuple[Array, Array]:
        """Returns the shifted image (C, i, j, k), and the label."""
        return image + shift, label


SPEC = AugmentationSpec(
    name="shift",
    factory="fseft.builtin.augmentations.shift:Shift",
    summary="a constant of up to 0.1 added to the intensities; not in the default set",
    reference="Silva-Rodríguez et al. 2025, MedIA 103:103596",
    probability=0.2,
)
