"""Augmentation: parameters are drawn in one step and applied in another, without global state."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from fseft.learn.training.components import load_component
from fseft.plugin import AugmentationSpec
from fseft.registry import registry

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fseft.learn.sampling.patch_sampler import Crops
    from fseft.schemas import Triple

Array = npt.NDArray[Any]

MARGIN = 0.075
"""Voxels read beyond each side of a crop for spatial augmentation, as a fraction of its size."""


class Augmentation(Protocol):
    """An augmentation of the intensities, or of image and label."""

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> Any:
        """Draws the parameters for a crop.

        Args:
            generator: The only source of randomness.
            shape: Shape of the crop, (C, i, j, k).

        Returns:
            The parameters, which `apply` does not change.
        """

    def apply(self, parameters: Any, image: Array, label: Array) -> tuple[Array, Array]:
        """Returns an augmented crop; the same for the same parameters.

        Args:
            parameters: From `draw`.
            image: (C, i, j, k) float32, not to be changed in place.
            label: (1, i, j, k) int16, not to be changed in place.
        """


class SpatialAugmentation(Protocol):
    """An augmentation that moves the coordinates at which image and label are sampled.

    The coordinates of all selected augmentations are composed, so that a crop is interpolated once.
    """

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> Any:
        """Draws the parameters for a crop, see `Augmentation.draw`."""

    def apply(self, parameters: Any, coordinates: Array) -> Array:
        """Returns moved coordinates.

        Args:
            parameters: From `draw`.
            coordinates: (3, i, j, k) float64, in voxels from the centre of the crop, not to be
                changed in place.
        """


@dataclass(frozen=True)
class Mirroring:
    """Flips of image and label, each axis with a probability of one half.

    Attributes:
        axes: Spatial axes, 0 to 2.
    """

    axes: tuple[int, ...] = (0, 1, 2)

    def draw(self, generator: np.random.Generator, _: tuple[int, ...]) -> tuple[int, ...]:
        """Draws the axes to flip, each with a probability of one half."""
        return tuple(axis for axis in self.axes if generator.random() < 0.5)

    def apply(self, axes: tuple[int, ...], image: Array, label: Array) -> tuple[Array, Array]:
        """Returns image (C, i, j, k) and label (1, i, j, k) flipped along the axes, as views."""
        with_channel = tuple(1 + axis for axis in axes)
        return np.flip(image, with_channel), np.flip(label, with_channel)


@dataclass(frozen=True)
class AugmentationStep:
    """An augmentation of a pipeline.

    Attributes:
        augmentation: An `Augmentation`, or a `SpatialAugmentation`.
        probability: Fraction of the crops that are augmented.
        spatial: Whether it is a `SpatialAugmentation`.
    """

    augmentation: Any
    probability: float
    spatial: bool = False


Drawn = list[tuple[AugmentationStep, Any]]
"""The steps that apply to a crop, each with its parameters."""


@dataclass(frozen=True)
class AugmentationPipeline:
    """Augmentations in their order; spatial ones come first.

    Attributes:
        steps: The augmentations; none leaves crops as they are.
    """

    steps: tuple[AugmentationStep, ...] = ()

    def margin(self, size: Triple) -> Triple:
        """Returns the voxels to read beyond each side of a crop, for its rotated corners.

        Args:
            size: Size of the augmented crop (i, j, k).
        """
        if not any(step.spatial for step in self.steps):
            return 0, 0, 0
        i, j, k = (ceil(MARGIN * side) for side in size)
        return i, j, k

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> Drawn:
        """Draws which steps apply to a crop, and their parameters.

        Args:
            generator: The only source of randomness.
            shape: Shape of the augmented crop (C, i, j, k), without the margin.
        """
        return [
            (step, step.augmentation.draw(generator, shape))
            for step in self.steps
            if generator.random() < step.probability
        ]

    def apply(self, drawn: Drawn, image: Array, label: Array, size: Triple) -> tuple[Array, Array]:
        """Returns an augmented crop.

        Args:
            drawn: From `draw`.
            image: (C, i, j, k) with the margin, float32.
            label: (1, i, j, k) with the margin, int16.
            size: Size of the augmented crop (i, j, k).
        """
        spatial = [(step, parameters) for step, parameters in drawn if step.spatial]
        image, label = (_resample if spatial else _centre)(image, label, size, spatial)
        for step, parameters in drawn:
            if not step.spatial:
                image, label = step.augmentation.apply(parameters, image, label)
        return image.astype(np.float32, copy=False), label.astype(np.int16, copy=False)

    def augment(self, crops: Crops, size: Triple, seed: int) -> Crops:
        """Returns augmented crops; the same for the same seed, in any thread or process.

        Args:
            crops: Crops of `size` with their `margin`.
            size: Size of the augmented crops (i, j, k).
            seed: Seed of all parameters.
        """
        if not self.steps:
            return crops
        generator = np.random.default_rng(seed)
        images, labels = [], []
        for image, label in zip(crops.images, crops.labels, strict=True):
            drawn = self.draw(generator, (len(image), *size))
            image_out, label_out = self.apply(drawn, image, label, size)
            images.append(image_out)
            labels.append(label_out)
        return replace(crops, images=np.stack(images), labels=np.stack(labels))


NO_AUGMENTATION = AugmentationPipeline()


def load_augmentations(
    names: Sequence[str],
    *,
    settings: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    mirror_axes: tuple[int, ...] = (),
) -> AugmentationPipeline:
    """Returns the pipeline of augmentations by their names.

    Args:
        names: Such as `TrainingConfig.augmentations`; the order is that of application.
        settings: `augment.NAME` -> settings of an augmentation; see `TrainingConfig.components`.
        mirror_axes: Spatial axes (0, 1, 2) that may be flipped.

    Raises:
        FseftError: No installed package provides a name.
    """
    steps = []
    for name in names:
        spec = registry().resolve("augmentation", name).spec
        assert isinstance(spec, AugmentationSpec)  # noqa: S101 - checked when it was collected
        augmentation = load_component("augmentation", name, settings.get(f"augment.{name}", {}))()
        registry().check("augmentation", name, augmentation)
        steps.append(AugmentationStep(augmentation, spec.probability, spec.spatial))
    if mirror_axes:
        steps.append(AugmentationStep(Mirroring(mirror_axes), probability=1.0))
    return AugmentationPipeline(tuple(steps))


def _centre(image: Array, label: Array, size: Triple, _: Iterable[Any]) -> tuple[Array, Array]:
    """Returns the central part of a crop."""
    inside = []
    for side, target in zip(image.shape[1:], size, strict=True):
        start = (side - target) // 2
        inside.append(slice(start, start + target))
    box = (slice(None), *inside)
    return image[box], label[box]


def _resample(
    image: Array, label: Array, size: Triple, spatial: Iterable[tuple[AugmentationStep, Any]]
) -> tuple[Array, Array]:
    """Interpolates image (linear) and label (nearest neighbour) at moved coordinates."""
    from batchgenerators.augmentations.utils import (
        create_zero_centered_coordinate_mesh,
        interpolate_img,
    )

    coordinates = create_zero_centered_coordinate_mesh(size)
    for step, parameters in spatial:
        coordinates = step.augmentation.apply(parameters, coordinates)
    centre = (np.asarray(image.shape[1:]) - 1) / 2
    coordinates = coordinates + centre[:, None, None, None]
    images = [interpolate_img(channel, coordinates, order=1) for channel in image]
    labels = [interpolate_img(channel, coordinates, order=0, is_seg=True) for channel in label]
    return np.stack(images), np.stack(labels)
