"""The augmentation `noise`: additive Gaussian noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import Field

from fseft.plugin import AugmentationSpec, Config

if TYPE_CHECKING:
    from numpy.random import Generator

    from fseft.learn.sampling.augmentation import Array


class NoiseConfig(Config):
    """Settings of the augmentation."""

    standard_deviation: float = Field(
        default=0.02, ge=0, description="largest standard deviation, in normalised intensities"
    )


@dataclass(frozen=True)
class NoiseParameters:
    """Standard deviation of the noise, in normalised intensities, and the seed of its values."""

    standard_deviation: float
    seed: int


@dataclass(frozen=True)
class Noise:
    """Gaussian noise, independent in each voxel.

    Attributes:
        standard_deviation: The largest, in normalised intensities.
    """

    standard_deviation: float = 0.02

    def draw(self, generator: Generator, shape: tuple[int, ...]) -> NoiseParameters:  # noqa: ARG002
        """Draws the standard deviation, in normalised intensities, and a seed."""
        standard_deviation = generator.uniform(0, self.standard_deviation)
        return NoiseParameters(standard_deviation, int(generator.integers(2**63)))

    def apply(self, parameters: NoiseParameters, image: Array, label: Array) -> tuple[Array, Array]:
        """Returns the image (C, i, j, k) with noise, and the label."""
        from numpy.random import default_rng

        noise = default_rng(parameters.seed).standard_normal(image.shape, dtype=image.dtype.type)
        return image + parameters.standard_deviation * noise, label


SPEC = AugmentationSpec(
    name="noise",
    factory="fseft.builtin.augmentations.noise:Noise",
    summary="Gaussian noise of a random standard deviation",
    config=NoiseConfig,
    probability=0.1,
)
