"""How well a network under training does on cases that are held out: the Dice of each class on fixed crops."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle, islice
from typing import TYPE_CHECKING

import numpy as np
import torch

from fseft.learn.sampling.multi_dataset_sampler import BatchRequest, CropRequest, read_batch
from fseft.learn.training.losses import structure_masks
from fseft.learn.training.prefetch import derived_seed

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from fseft.learn.training.distributed import DistributedContext
    from fseft.pretraining.datasets import TrainingDatasets


@dataclass(frozen=True)
class Validation:
    """Fixed crops of the held-out cases, around every class in turn.

    Attributes:
        crops: One order each.
        classes: Of the model.
        world: Each rank does its part of the crops.
    """

    crops: tuple[BatchRequest, ...]
    classes: tuple[str, ...]
    world: DistributedContext

    @classmethod
    def of(
        cls,
        assembly: TrainingDatasets,
        world: DistributedContext,
        *,
        count: int,
        like: BatchRequest,
        seed: int,
    ) -> Validation:
        """Draw the crops.

        Args:
            assembly: With the held-out cases.
            world: The ranks.
            count: How many crops there should be; every class that is held out has one at least.
            like: Size and structures of the crops.
            seed: Decides them.
        """
        having = [
            (source, index, cases)
            for source in assembly.held_out
            for index, cases in source.cases_with.items()
        ]
        orders = []
        for number, (source, index, cases) in enumerate(
            islice(cycle(having), max(count, len(having)))
        ):
            own = derived_seed(seed, "validation", number)
            case = cases[np.random.default_rng(own).integers(len(cases))]
            orders.append(
                BatchRequest(
                    (CropRequest(source.crops, case, index, own),),
                    like.size,
                    like.structures,
                )
            )
        return cls(tuple(orders), assembly.classes, world)

    @torch.no_grad()
    def dice(self, network: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Class -> Dice over all voxels of the crops in which it is annotated (as nnU-Net's, Isensee et al. 2021).

        All ranks must ask; each calls the network as often as any other, as sharded networks need.
        """
        overlap, total = torch.zeros(2, len(self.classes), device=self.world.device)
        rounds = -(-len(self.crops) // self.world.size)
        for number in range(self.world.rank, rounds * self.world.size, self.world.size):
            batch = read_batch(self.crops[number % len(self.crops)])
            found = network(torch.from_numpy(batch.images).to(self.world.device)).float() > 0
            labels = torch.from_numpy(batch.labels).to(self.world.device)
            counts = torch.from_numpy(batch.annotated).to(self.world.device)[0] * (
                number < len(self.crops)
            )
            reference = structure_masks(labels, len(self.classes)) > 0
            overlap += counts * (found & reference).sum((0, 2, 3, 4))
            total += counts * (found.sum((0, 2, 3, 4)) + reference.sum((0, 2, 3, 4)))
        sums = zip(
            self.classes,
            self.world.sum(overlap).tolist(),
            self.world.sum(total).tolist(),
            strict=True,
        )
        return {name: round(2 * both / either, 4) for name, both, either in sums if either}
