"""The augmentation `rotation`: rotation about each axis by up to 20 degrees."""

from __future__ import annotations

from math import pi
from typing import TYPE_CHECKING

from fseft.plugin import AugmentationSpec

if TYPE_CHECKING:
    from numpy.random import Generator

    from fseft.learn.sampling.augmentation import Array

MAX_ANGLE = pi / 9
"""Largest angle about each axis, in radians."""


class Rotation:
    """Rotation about the centre of the crop."""

    def draw(self, generator: Generator, shape: tuple[int, ...]) -> tuple[float, ...]:
        """Draws an angle about each axis, in radians."""
        return tuple(generator.uniform(-MAX_ANGLE, MAX_ANGLE, len(shape) - 1).tolist())

    def apply(self, angles: tuple[float, ...], coordinates: Array) -> Array:
        """Returns the rotated sampling coordinates, (3, i, j, k)."""
        from batchgenerators.augmentations.utils import rotate_coords_3d

        rotated: Array = rotate_coords_3d(coordinates, *angles)
        return rotated


SPEC = AugmentationSpec(
    name="rotation",
    factory="fseft.builtin.augmentations.rotation:Rotation",
    summary="rotation about each axis by up to 20 degrees",
    probability=0.2,
    spatial=True,
)
