"""The augmentation `rotation`: rotation about each axis by up to 20 degrees."""

from __future__ import annotations

from dataclasses import dataclass
from math import radians
from typing import TYPE_CHECKING

from pydantic import Field

from fseft.plugin import AugmentationSpec, Config

if TYPE_CHECKING:
    from numpy.random import Generator

    from fseft.learn.sampling.augmentation import Array


class RotationConfig(Config):
    """Settings of the augmentation."""

    degrees: float = Field(default=20.0, ge=0, le=180, description="largest angle about each axis")


@dataclass(frozen=True)
class Rotation:
    """Rotation about the centre of the crop.

    Attributes:
        degrees: The largest angle about each axis.
    """

    degrees: float = 20.0

    def draw(self, generator: Generator, shape: tuple[int, ...]) -> tuple[float, ...]:
        """Draws an angle about each axis, in radians."""
        largest = radians(self.degrees)
        return tuple(generator.uniform(-largest, largest, len(shape) - 1).tolist())

    def apply(self, angles: tuple[float, ...], coordinates: Array) -> Array:
        """Returns the rotated sampling coordinates, (3, i, j, k)."""
        from batchgenerators.augmentations.utils import rotate_coords_3d

        rotated: Array = rotate_coords_3d(coordinates, *angles)
        return rotated


SPEC = AugmentationSpec(
    name="rotation",
    factory="fseft.builtin.augmentations.rotation:Rotation",
    summary="rotation about each axis by a random angle",
    config=RotationConfig,
    probability=0.2,
    spatial=True,
)
