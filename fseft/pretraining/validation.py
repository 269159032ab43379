"""Validation during pre-training: the Dice of each structure on fixed crops of held-out cases."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle, islice
from typing import TYPE_CHECKING

import numpy as np
import torch

from fseft.learn.sampling.multi_dataset_sampler import BatchRequest, CropRequest, read_batch
from fseft.learn.training.losses import structure_masks
from fseft.learn.training.prefetch import derived_seed
from fseft.volume.label_values import IGNORED

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from fseft.learn.training.distributed import DistributedContext
    from fseft.pretraining.data_split import TrainingDatasets


@dataclass(frozen=True)
class Validation:
    """Fixed crops of the held-out cases, centred on each structure in turn.

    Attributes:
        crops: Batches of one crop each.
        classes: Structures of the model.
        world: Ranks, among which the crops are divided.
    """

    crops: tuple[BatchRequest, ...]
    classes: tuple[str, ...]
    world: DistributedContext

    @classmethod
    def draw(
        cls,
        datasets: TrainingDatasets,
        world: DistributedContext,
        *,
        count: int,
        template: BatchRequest,
        seed: int,
    ) -> Validation:
        """Draws the crops.

        Args:
            datasets: Datasets with the held-out cases.
            world: Ranks, among which the crops are divided.
            count: Number of crops; every held-out structure has at least one.
            template: Batch of the training, with the size and structures of the crops.
            seed: Random seed.
        """
        groups = [
            (source, index, cases)
            for source in datasets.held_out
            for index, cases in source.cases_with.items()
        ]
        crops = []
        for number, group in enumerate(islice(cycle(groups), max(count, len(groups)))):
            source, index, cases = group
            crop_seed = derived_seed(seed, "validation", number)
            case = cases[np.random.default_rng(crop_seed).integers(len(cases))]
            pick = CropRequest(source.crops, case, index, crop_seed)
            crops.append(BatchRequest((pick,), template.size, template.structures))
        return cls(tuple(crops), datasets.classes, world)

    @torch.no_grad()
    def dice(self, network: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Computes the Dice over all voxels of those crops in which a structure is annotated.

        Follows nnU-Net (Isensee et al. 2021). A collective call: every rank calls the network the
        same number of times, as sharded networks require.

        Args:
            network: Maps images (1, 1, i, j, k) to logits (1, classes, i, j, k).

        Returns:
            Structure -> Dice, for structures in any prediction or reference.
        """
        overlap, total = torch.zeros(2, len(self.classes), device=self.world.device)
        num_rounds = -(-len(self.crops) // self.world.size)
        for number in range(self.world.rank, num_rounds * self.world.size, self.world.size):
            crop_overlap, crop_total = self._count_voxels(network, number % len(self.crops))
            if number < len(self.crops):  # the others only keep the ranks in step
                overlap += crop_overlap
                total += crop_total
        overlaps = self.world.sum(overlap).tolist()
        totals = self.world.sum(total).tolist()
        scores = {}
        for name, both, either in zip(self.classes, overlaps, totals, strict=True):
            if either:
                scores[name] = round(2 * both / either, 4)
        return scores

    def _count_voxels(
        self, network: Callable[[Tensor], Tensor], number: int
    ) -> tuple[Tensor, Tensor]:
        """Voxels (classes,) in prediction and reference, and the sum of both, of a crop."""
        batch, device = read_batch(self.crops[number]), self.world.device
        labels = torch.from_numpy(batch.labels).to(device)
        logits = network(torch.from_numpy(batch.images).to(device)).float()
        prediction = (logits > 0) & (labels != IGNORED)[:, None]
        reference = structure_masks(labels, len(self.classes)) > 0
        annotated = torch.from_numpy(batch.annotated).to(device)[0]
        axes = (0, 2, 3, 4)
        overlap = (prediction & reference).sum(axes)
        total = prediction.sum(axes) + reference.sum(axes)
        return annotated * overlap, annotated * total
