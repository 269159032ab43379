"""A mean teacher: scans without labels train the network on what its moving average predicts.

The teacher is the moving average of the trained parameters (Tarvainen and Valpola 2017,
arXiv:1703.01780). It labels a crop of a scan; the student learns these labels, where the teacher is
confident, on the same crop with stronger augmentation (FixMatch: Sohn et al. 2020,
arXiv:2001.07685). The average is the result of the training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from fseft.adaptation.crop_training import Batch, overlapping_members
from fseft.adaptation.support_crops import crop_source
from fseft.learn.sampling.augmentation import AugmentationPipeline, load_augmentations
from fseft.learn.sampling.patch_sampler import Crops
from fseft.learn.training.prefetch import derived_seed
from fseft.learn.training_loop import autocast
from fseft.volume.label_values import IGNORED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fseft.adaptation.request import AdaptConfig
    from fseft.learn.sampling.patch_sampler import Array, CropSource
    from fseft.learn.training_loop import Training
    from fseft.volume.cache import CachedCase

CONFIDENCE = 0.9
"""Probability from which a label of the teacher counts."""
START, FULL = 0.2, 0.6
"""Fractions of the training at which the weight of these labels starts to rise, and is largest."""
FEW_CASES = 2
"""Training cases up to which the largest weight is 1; it is smaller in proportion to more."""
AUGMENTATIONS = (
    *("noise", "blur", "brightness", "contrast", "gamma"),
    *("inverted_gamma", "low_resolution", "brightness_gradient", "blank_boxes"),
)
"""Augmentations of the student's crops; none moves voxels."""
PROBABILITY = 0.4
"""Fraction of the student's crops that each of them changes."""


@dataclass(frozen=True)
class UnlabelledCrops:
    """Crops of scans without labels: what the teacher sees, and what the student sees.

    Attributes:
        images: (B, C, i, j, k), float32, normalised.
        augmented: The same crops, augmented.
    """

    images: Array
    augmented: Array


@dataclass(frozen=True)
class MeanTeacher:
    """The teacher of a training, and its scans.

    Attributes:
        config: The resolved configuration.
        training: The state of the training, with its moving average.
        scans: The preprocessed scans without labels.
        source: Sampler of the crops.
        augmentations: Augmentations of the student's crops.
    """

    config: AdaptConfig
    training: Training
    scans: Sequence[CachedCase]
    source: CropSource
    augmentations: AugmentationPipeline

    @classmethod
    def of(
        cls, config: AdaptConfig, training: Training, scans: Sequence[CachedCase]
    ) -> MeanTeacher:
        """Returns the teacher of a training.

        Args:
            config: The resolved configuration.
            training: The state of the training, with a moving average.
            scans: The preprocessed scans without labels.
        """
        selected = load_augmentations(AUGMENTATIONS)
        steps = tuple(replace(step, probability=PROBABILITY) for step in selected.steps)
        source = crop_source(config, foreground=0.0)
        return cls(config, training, scans, source, AugmentationPipeline(steps))

    @property
    def weight(self) -> float:
        """Weight of a voxel with a label of the teacher, 0 to 1, against one of the training cases.

        A training that starts from an adapter has a good teacher from its first step on. More
        training cases leave less to learn from labels that may be wrong.
        """
        largest = min(1.0, FEW_CASES / len(self.config.support.cases))
        start = 0.0 if self.config.request.origin else START
        passed = self.training.progress - start
        return largest * ramp(passed / (FULL - start))

    def draw(self, step: int) -> UnlabelledCrops:
        """Draws the crops of a step, from anywhere in as many scans.

        Args:
            step: Number of the step; seeds everything random.
        """
        seed, count = self.config.request.seed, self.config.unlabelled_crops
        rng = np.random.default_rng(derived_seed(seed, "unlabelled", step))
        drawn = rng.choice(len(self.scans), count, replace=count > len(self.scans))
        cases = [self.scans[number] for number in drawn]
        images = np.stack(
            [self.source.read_image(case, self.source.random_start(case, rng)) for case in cases]
        )
        unlabelled = Crops(images, np.zeros((count, 1, *self.source.size), np.int16))
        augmented = self.augmentations.augment(
            unlabelled, self.source.size, derived_seed(seed, "student", step)
        )
        return UnlabelledCrops(images, augmented.images)

    @torch.no_grad()
    def labels(self, images: torch.Tensor) -> torch.Tensor:
        """Returns the labels (B, i, j, k) of the teacher, `IGNORED` where it is not confident.

        Args:
            images: (B, C, i, j, k).
        """
        adapted, config = self.training.adapted, self.config
        adapted.network.eval()
        with self.training.ema_weights(), autocast(config.plan.device, config.training.precision):
            logits = adapted.network(images)
        adapted.train()
        return confident_labels(logits.float(), overlapping_members(config))

    def extended(self, labelled: Batch, unlabelled: UnlabelledCrops) -> Batch:
        """Returns a batch with the student's crops as well, and the teacher's labels of them.

        Args:
            labelled: Crops of the training cases.
            unlabelled: Crops of scans without labels.
        """
        device = labelled.images.device
        images = torch.from_numpy(unlabelled.augmented).to(device)
        labels = self.labels(torch.from_numpy(unlabelled.images).to(device))
        weights = labelled.images.new_ones(len(labelled.labels) + len(labels), 1, 1, 1)
        weights[len(labelled.labels) :] = self.weight
        annotated = labelled.annotated
        if annotated is not None:
            # Without a labelled crop of a structure, its mean loss would not depend on the weight.
            known = annotated.amax(0, keepdim=True).expand(len(labels), -1)
            annotated = torch.cat([annotated, known])
        return Batch(
            torch.cat([labelled.images, images]),
            torch.cat([labelled.labels, labels]),
            annotated,
            weights,
        )


def ramp(fraction: float) -> float:
    """Returns a weight that rises from 0 to 1, slowly at first (Laine and Aila, arXiv:1610.02242).

    Args:
        fraction: Fraction of the rise that has passed; 0 before it.

    Examples:
        >>> ramp(-0.1), round(ramp(0.5), 2), ramp(1.5)
        (0.0, 0.29, 1.0)
    """
    return math.exp(-5 * (1 - min(fraction, 1)) ** 2) if fraction > 0 else 0.0


def confident_labels(logits: torch.Tensor, members: torch.Tensor | None = None) -> torch.Tensor:
    """Returns the most probable label of each voxel, `IGNORED` below `CONFIDENCE`.

    Args:
        logits: (B, 1 + structures, ...), the background first.
        members: (labels, structures), 1 where voxels with the label belong to the structure, if
            structures overlap; the probability of a label is then the product of theirs.
    """
    scores = logits
    if members is not None:
        odds = (logits[:, 1:] - logits[:, :1]).movedim(1, -1)
        inside, outside = F.logsigmoid(odds), F.logsigmoid(-odds)
        by_label = inside @ members.T + outside @ (1 - members).T
        scores = by_label.movedim(-1, 1)
    confidence, labels = scores.softmax(1).max(1)
    return torch.where(confidence >= CONFIDENCE, labels, IGNORED)
