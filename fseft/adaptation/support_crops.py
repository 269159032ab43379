"""Crops of the training cases, drawn and augmented for each step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fseft.learn.sampling.augmentation import AugmentationPipeline, load_augmentations
from fseft.learn.sampling.cutmix import cutmix
from fseft.learn.sampling.patch_sampler import CropSource
from fseft.learn.training.prefetch import derived_seed

if TYPE_CHECKING:
    from collections.abc import Collection

    from fseft.adaptation.request import AdaptConfig
    from fseft.learn.sampling.patch_sampler import Crops
    from fseft.schemas import Triple
    from fseft.volume.cache import CachedCase


@dataclass(frozen=True)
class SupportCrops:
    """The crops of a training.

    Attributes:
        config: The resolved configuration.
        cached: The preprocessed training cases.
        source: Sampler of the crops, with the margin that the augmentations need.
        augmentations: Augmentations of the crops.
    """

    config: AdaptConfig
    cached: list[CachedCase]
    source: CropSource
    augmentations: AugmentationPipeline

    @classmethod
    def of(cls, config: AdaptConfig, cached: list[CachedCase]) -> SupportCrops:
        """Returns the crops of a configuration, whose augmentations are built once.

        Args:
            config: The resolved configuration.
            cached: The preprocessed training cases.
        """
        training = config.training
        augmentations = load_augmentations(
            training.augmentations,
            settings=training.components,
            mirror_axes=(0, 1, 2) if training.mirror else (),
        )
        margin = augmentations.margin(config.plan.preprocessing.patch_size)
        source = crop_source(config, foreground=training.foreground_fraction, margin=margin)
        return cls(config, cached, source, augmentations)

    def draw(self, step: int, held_out: Collection[int] = ()) -> Crops:
        """Draws the crops of a step, from as many training cases as there are crops.

        Each epoch visits the cases in a random order: the first crop of a step is from the next
        case, the second from the one after it, and so on.

        Args:
            step: Number of the step, from 0 on; seeds everything random.
            held_out: Indices of cases not to draw from.

        Returns:
            Augmented crops, as many as a step has.
        """
        cached, seed = self.cached, self.config.request.seed
        epoch, position = divmod(step, len(cached))
        order = np.random.default_rng(derived_seed(seed, "order", epoch)).permutation(len(cached))
        available = [cached[case] for case in order if case not in held_out]
        first = position % len(available)
        rotated = available[first:] + available[:first]
        rng = np.random.default_rng(derived_seed(seed, "crops", step))
        crops = self.source.draw(rotated, self.config.crops_per_step, rng)
        patch = self.config.plan.preprocessing.patch_size
        crops = self.augmentations.augment(crops, patch, derived_seed(seed, "augmentation", step))
        probability = self.config.training.cutmix_probability
        if not probability:
            return crops
        return cutmix(crops, probability, np.random.default_rng(derived_seed(seed, "cutmix", step)))


def crop_source(
    config: AdaptConfig, *, foreground: float, margin: Triple = (0, 0, 0)
) -> CropSource:
    """Builds the sampler of crops of the planned patch size.

    Args:
        config: The resolved configuration.
        foreground: Fraction of the crops that are centred on a structure.
        margin: Voxels to read beyond each side of a crop.
    """
    preprocessing = config.plan.preprocessing
    classes = {value: number for number, value in enumerate(config.voxel_values, start=1)}
    return CropSource(
        preprocessing.patch_size,
        preprocessing.intensity,
        preprocessing.modality,
        classes,
        foreground,
        margin,
        preprocessing.padding,
        {
            case: [float(name in names) for name in config.labels]
            for case, names in config.annotated.items()
        },
        preprocessing.channel_mode,
    )
